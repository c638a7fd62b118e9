// swift-tools-version: 6.2
import PackageDescription

let strict: [SwiftSetting] = [
  .swiftLanguageMode(.v6),
  .enableExperimentalFeature("Lifetimes"),
]
let system = Target.Dependency.product(name: "SystemPackage", package: "swift-system")
let logging = Target.Dependency.product(name: "Logging", package: "swift-log")
let arguments = Target.Dependency.product(name: "ArgumentParser", package: "swift-argument-parser")

/// One library layer of the VMM with its unit tests, which need no KVM.
func layer(_ name: String, _ dependencies: [Target.Dependency]) -> [Target] {
  [
    .target(name: name, dependencies: dependencies, swiftSettings: strict),
    .testTarget(
      name: "\(name)Tests", dependencies: dependencies + [.byName(name: name)], swiftSettings: strict),
  ]
}

/// One portable module of the guest with its unit tests.
func guestLayer(_ name: String, _ dependencies: [Target.Dependency]) -> [Target] {
  [
    .target(
      name: name, dependencies: dependencies, path: "Guest/Sources/\(name)", swiftSettings: strict),
    .testTarget(
      name: "\(name)Tests", dependencies: dependencies + [.byName(name: name)], swiftSettings: strict),
  ]
}

let package = Package(
  name: "castor",
  products: [
    .executable(name: "castor", targets: ["castor"]),
    .executable(name: "castor-vmm", targets: ["castor-vmm"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0"),
    .package(url: "https://github.com/apple/swift-log", from: "1.16.0"),
    .package(url: "https://github.com/apple/swift-system", from: "1.8.0"),
    .package(url: "https://github.com/jpsim/Yams", from: "6.2.0"),
  ],
  targets: [
    // C: headers of the host kernel and system libraries, and nothing that Swift can say itself.
    .target(name: "CLinux"),
    .target(name: "CBootROM", path: "firmware"),
    .target(name: "CHostRing", linkerSettings: [.linkedLibrary("uring")]),
    .target(name: "CRing", linkerSettings: [.linkedLibrary("uring")]),  // apt: liburing-dev
    .systemLibrary(name: "CFDT", providers: [.apt(["libfdt-dev"])]),
  ]
    // Lower layers first; nothing imports upwards.
    + layer("HostSystem", ["CLinux", system])
    + layer("GuestMemory", ["CLinux", "HostSystem", system])
    + layer("KVM", ["CLinux", "HostSystem", system])
    + layer("BlockStorage", ["CLinux", "CRing", "HostSystem", system, logging])
    + layer("NetworkLink", ["CLinux", "HostSystem", system, logging])
    + layer("Virtio", ["CLinux", "HostSystem", "GuestMemory", "BlockStorage", "NetworkLink", system, logging])
    + layer("Devices", ["CLinux", "HostSystem", system, logging])
    + [
      // A program with nothing but a console, which DevicesTests run on pseudo-terminals.
      .executableTarget(
        name: "console-probe", dependencies: ["Devices", "HostSystem"], path: "Tests/ConsoleProbe",
        swiftSettings: strict)
    ]
    + layer("DeviceTree", ["CFDT"])
    + layer("Loader", ["CBootROM", "GuestMemory", "DeviceTree", "HostSystem", system])
    + layer("GDBRemote", ["HostSystem", system, logging])
    + layer("Configuration", [])
    + layer(
      "Machine",
      [
        "CLinux", "HostSystem", "GuestMemory", "KVM", "BlockStorage", "NetworkLink", "Virtio", "Devices",
        "DeviceTree", "Loader", "GDBRemote", "Configuration", system, logging,
      ])
    // Pollux's portable modules, compiled for the host so that they can be tested.
    + guestLayer("BootFormats", [])
    + [
      .target(
        name: "LinuxModules", dependencies: ["BootFormats"], path: "Guest/Sources/LinuxModules", swiftSettings: strict),
      // Makes module files byte by byte, for the tests of the module and of the command.
      .target(name: "LinuxModuleBuilder", path: "Tests/LinuxModuleBuilder", swiftSettings: strict),
      .testTarget(
        name: "LinuxModulesTests", dependencies: ["LinuxModules", "LinuxModuleBuilder", "BootFormats"],
        swiftSettings: strict),
    ]
    + guestLayer("DriverVirtqueue", [])
    + [.target(name: "DriverContract", path: "Guest/Sources/DriverContract", swiftSettings: strict)]
    + guestLayer("BlockInterface", ["DriverContract", "DriverVirtqueue"])
    + guestLayer("NetInterface", ["DriverContract", "DriverVirtqueue"])
    + [
      .target(
        name: "FileInterface", dependencies: ["BootFormats"], path: "Guest/Sources/FileInterface", swiftSettings: strict
      )
    ]
    + guestLayer("TmpFS", ["FileInterface", "BootFormats"])
    + guestLayer("BenchmarkCore", ["BootFormats"])
    + guestLayer("PacketBench", [])
    + guestLayer("Ext2", ["FileInterface", "BootFormats"])
    + [
      .target(
        name: "VFS", dependencies: ["FileInterface", "BootFormats"], path: "Guest/Sources/VFS", swiftSettings: strict),
      .testTarget(
        name: "VFSTests", dependencies: ["VFS", "Ext2", "TmpFS", "FileInterface", "BootFormats"], swiftSettings: strict),
    ]
    + [
      .executableTarget(
        name: "castor-vmm", dependencies: ["Machine", "Configuration", "HostSystem", logging],
        swiftSettings: strict),
      .executableTarget(
        name: "castor",
        dependencies: [
          "CLinux", "CHostRing", "Configuration", "HostSystem", "KVM", "DeviceTree", "Loader", "BlockStorage",
          "GuestMemory", "LinuxModules", "BootFormats", "PacketBench",
          "BenchmarkCore", arguments, logging, "Yams", system,
        ],
        swiftSettings: strict, plugins: ["GuestImage"]),
      // The built guest on both machines: Castor on KVM, and QEMU's emulator.
      .testTarget(
        name: "GuestTests", dependencies: ["Configuration", "Loader", "castor-vmm"], swiftSettings: strict),
      .testTarget(
        name: "castorTests",
        dependencies: [
          "castor", "castor-vmm", "CLinux", "Configuration", "DeviceTree", "Loader", "LinuxModuleBuilder", arguments,
          "Yams",
        ],
        swiftSettings: strict),
    ]
    // The guest package in Guest/, built by a plugin, and its portable modules once more for the host, so that they are tested.
    + [
      .executableTarget(name: "pollux-image", path: "Guest/Tools/pollux-image", swiftSettings: strict),
      .plugin(
        name: "GuestImage", capability: .buildTool(), dependencies: ["pollux-image"], path: "Guest/Plugin"),
      .target(name: "PolluxABI", path: "Guest/Sources/PolluxABI", swiftSettings: strict),
      .target(
        name: "KernelCore", dependencies: ["PolluxABI"], path: "Guest/Sources/KernelCore", swiftSettings: strict),
      .testTarget(
        name: "KernelCoreTests", dependencies: ["KernelCore", "PolluxABI"], swiftSettings: strict),
      .target(
        name: "MemoryBooks", dependencies: ["PolluxABI"], path: "Guest/Sources/MemoryBooks", swiftSettings: strict),
      .testTarget(
        name: "MemoryBooksTests", dependencies: ["KernelCore", "MemoryBooks", "PolluxABI"], swiftSettings: strict),
    ]
)
