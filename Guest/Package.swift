// swift-tools-version: 6.2
import PackageDescription

// Pollux: everything that runs inside the machine, for x86_64-unknown-none-elf only. `swift build` in the root runs
// build-image.sh through Guest/Plugin, which builds this package and packs the boot archive.
let here = Context.packageDirectory

func swift(_ machine: [String]) -> [SwiftSetting] {
  [
    .swiftLanguageMode(.v6),
    .enableExperimentalFeature("Embedded"),
    .enableExperimentalFeature("Lifetimes"),
    .unsafeFlags(
      ["-wmo", "-parse-as-library"]
        // The runtime of Embedded Swift has no exclusivity checks, only the calls for them.
        + ["-enforce-exclusivity=unchecked"]
        + ["-disable-stack-protector", "-function-sections", "-no-clang-module-breadcrumbs"]
        .flatMap { ["-Xfrontend", $0] } + (["-ffreestanding"] + machine).flatMap { ["-Xcc", $0] }),
  ] + (isKernelSpace ? [.define("POLLUX_KERNEL_SPACE")] : [])
}
func c(_ machine: [String]) -> [CSetting] {
  [.unsafeFlags(["-ffreestanding", "-fno-stack-protector", "-ffunction-sections", "-fPIE"] + machine)]
}
// Clang would run gcc to link for this triple; the Linux target makes it run ld.lld.
func link(_ script: String) -> [LinkerSetting] {
  [
    .unsafeFlags(
      ["-use-ld=lld"]
        + ["--target=x86_64-unknown-linux-gnu", "-nostdlib", "-static"].flatMap { ["-Xclang-linker", $0] }
        + [
          "-T", "\(here)/linker/\(script)", "--gc-sections", "-z", "noexecstack", "-z", "max-page-size=4096",
          "--build-id=none",
        ].flatMap { ["-Xlinker", $0] })
  ]
}

// Ring 0: no SSE, MMX or red zone (clang options given by -Xcc also set the target features of Swift code).
let kernelMachine = ["-mno-sse", "-mno-mmx", "-mno-red-zone", "-fno-omit-frame-pointer"]
// Ring 3: baseline x86-64 with SSE2. No red zone, so that a signal-like upcall may use the stack. With POLLUX_SPACE=kernel the same
// programs are built for kernel space (HongMeng §4.2): the kernel's machine, and a place that the loader chooses.
let isKernelSpace = Context.environment["POLLUX_SPACE"] == "kernel"
let userMachine =
  isKernelSpace ? kernelMachine + ["-DPOLLUX_KERNEL_SPACE"] : ["-mno-red-zone", "-fno-omit-frame-pointer"]

/// A module of the kernel.
func kernelModule(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
  .target(name: name, dependencies: dependencies, swiftSettings: swift(kernelMachine))
}
/// A Swift module of ring 3.
func userModule(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
  .target(name: name, dependencies: dependencies, swiftSettings: swift(userMachine))
}
/// A program of ring 3; list it in archive.txt to have it in the boot archive.
func program(_ name: String, _ dependencies: [Target.Dependency], path: String) -> Target {
  .executableTarget(
    name: name, dependencies: dependencies, path: "Sources/\(path)", swiftSettings: swift(userMachine),
    linkerSettings: isKernelSpace
      ? link("service.ld") + [.unsafeFlags(["-pie", "--no-dynamic-linker"].flatMap { ["-Xlinker", $0] })]
      : link("user.ld"))
}

let package = Package(
  name: "Guest",
  products: [],
  targets: [
    // The contract between kernel and programs: constants and inlinable arithmetic only, so one build serves both rings.
    .target(name: "PolluxABI", swiftSettings: swift(kernelMachine)),

    // Kernel.
    .target(name: "CArch", cSettings: c(kernelMachine)),
    kernelModule("KernelCore", ["PolluxABI"]),
    .executableTarget(
      name: "kernel", dependencies: ["CArch", "KernelCore", "PolluxABI"], path: "Sources/Kernel",
      swiftSettings: swift(kernelMachine), linkerSettings: link("kernel.ld")),

    // Portable modules of ring 3; the root package compiles them for the host too, to test them.
    userModule("BootFormats"),
    userModule("DriverVirtqueue"),
    userModule("DriverContract"),
    userModule("BlockInterface", ["DriverContract", "DriverVirtqueue"]),
    userModule("NetInterface", ["DriverContract", "DriverVirtqueue"]),
    userModule("LinuxModules", ["BootFormats"]),

    userModule("FileInterface", ["BootFormats"]),
    userModule("TmpFS", ["FileInterface", "BootFormats"]),
    userModule("Ext2", ["FileInterface", "BootFormats"]),
    userModule("VFS", ["FileInterface", "BootFormats"]),

    userModule("BenchmarkCore", ["BootFormats"]),
    userModule("PacketBench", []),
    userModule("MemoryBooks", ["PolluxABI"]),

    // The runtime of programs.
    .target(name: "CPollux", cSettings: c(userMachine)),
    userModule("Pollux", ["CPollux", "PolluxABI", "BootFormats"]),

    // The two ends of the contract between a driver container and its twin.
    userModule("DriverControl", ["DriverContract", "Pollux"]),

    // The block interface's two ends.
    userModule("BlockServer", ["BlockInterface", "CPollux", "DriverVirtqueue", "Pollux"]),
    userModule("BlockClient", ["BlockInterface", "DriverVirtqueue", "Pollux"]),

    // The network interface's two ends.
    userModule("NetServer", ["DriverVirtqueue", "NetInterface", "Pollux"]),
    userModule("NetClient", ["DriverVirtqueue", "NetInterface", "Pollux"]),

    // The file service's client.
    userModule("Files", ["FileInterface", "Pollux"]),

    // The memory manager's clients, alone and together with files.
    userModule("MemoryClient", ["FileInterface", "Pollux"]),

    // How benchmark programs measure and report.
    userModule("BenchReport", ["BenchmarkCore", "Pollux"]),

    // The kernel's test, which takes init's place in an archive of its own.
    .target(name: "CKernelTest", cSettings: c(userMachine)),
    program("kernel-test", ["CKernelTest", "CPollux", "Pollux"], path: "KernelTest"),

    // The test of isolation classes, likewise.
    .target(name: "CIsolationTest", cSettings: c(userMachine)),
    program("isolation-test", ["CIsolationTest", "CPollux", "Pollux"], path: "IsolationTest"),

    program("class-test", ["CPollux", "Pollux"], path: "ClassTest"),

    // The test of the border between a driver's container and its twin, which takes the place of both.
    program("crossing-test", ["DriverVirtqueue", "Pollux"], path: "CrossingTest"),

    // Programs and services.
    program("echo", ["CPollux", "Pollux"], path: "Echo"),
    program("init", ["Pollux"], path: "Init"),
    program("console", ["FileInterface", "Files", "Pollux"], path: "Console"),
    program(
      "block-container",
      ["BlockInterface", "BlockServer", "DriverContract", "DriverControl", "DriverVirtqueue", "Pollux"],
      path: "BlockContainer"),
    program(
      "block-twin", ["BlockInterface", "BlockServer", "DriverContract", "DriverControl", "DriverVirtqueue", "Pollux"],
      path: "BlockTwin"),
    program(
      "net-twin", ["DriverContract", "DriverControl", "DriverVirtqueue", "NetInterface", "NetServer", "Pollux"],
      path: "NetTwin"),
    .target(name: "CLinuxContainer", cSettings: c(userMachine)),
    program(
      "linux-container",
      [
        "BlockInterface", "BlockServer", "BootFormats", "CLinuxContainer", "DriverContract", "DriverControl",
        "LinuxModules", "NetInterface", "NetServer", "Pollux",
      ],
      path: "LinuxContainer"),
    program("bench-block", ["BenchmarkCore", "BlockClient", "Pollux"], path: "BenchBlock"),
    program("net-test", ["BenchmarkCore", "NetClient", "PacketBench", "Pollux"], path: "NetTest"),
    program("bench-net", ["BenchReport", "NetClient", "PacketBench", "Pollux"], path: "BenchNet"),
    program("bench-rpc", ["BenchReport", "CPollux", "Pollux"], path: "BenchRPC"),
    program("stress", ["Files", "MemoryClient", "Pollux"], path: "Stress"),
    program("memory-manager", ["MemoryBooks", "MemoryClient", "Pollux"], path: "MemoryManager"),
    program("bench-paging", ["BenchReport", "Pollux"], path: "BenchPaging"),
    program("bench-tokens", ["BenchReport", "Pollux"], path: "BenchTokens"),
    program("memory-test", ["MemoryClient", "Pollux"], path: "MemoryTest"),
    program("file-memory", ["FileInterface", "MemoryClient", "TmpFS", "Pollux"], path: "FileMemory"),
    program("composition-test", ["MemoryClient", "Pollux"], path: "CompositionTest"),
    program("bench-composition", ["BenchReport", "MemoryClient", "Pollux"], path: "BenchComposition"),
    program("file-test", ["FileInterface", "Files", "Pollux"], path: "FileTest"),
    program("vfs", ["BlockClient", "Ext2", "FileInterface", "Pollux", "TmpFS", "VFS"], path: "VFSService"),
    program("memdisk", ["BlockInterface", "BlockServer", "Pollux"], path: "MemoryDisk"),
  ]
)
