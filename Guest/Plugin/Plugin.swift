// How `swift build` of the root package builds the guest: by running Guest/build-image.sh, which leaves kernel.elf and
// archive.tar in the plugin's folder and copies them to the stable place <scratch path>/pollux/ (.build/pollux/).
import Foundation
import PackagePlugin

@main struct GuestImage: BuildToolPlugin {
  func createBuildCommands(context: PluginContext, target: Target) throws -> [Command] {
    let guest = context.package.directoryURL.appending(path: "Guest")
    let out = context.pluginWorkDirectoryURL
    let image = try context.tool(named: "pollux-image").url
    var inputs = ["Package.swift", "build-image.sh", "archive.txt"].map { guest.appending(path: $0) } + [image]
    for folder in ["Sources", "linker", "Files"] {
      let root = guest.appending(path: folder)
      guard FileManager.default.fileExists(atPath: root.path()) else { continue }
      guard let walk = FileManager.default.enumerator(at: root, includingPropertiesForKeys: nil) else { continue }
      inputs.append(root)
      // Folders too: a new file changes its folder.
      for case let url as URL in walk { inputs.append(url) }
    }
    return [
      .buildCommand(
        displayName: "Building the guest",
        executable: URL(filePath: "/bin/sh"),
        arguments: [
          guest.appending(path: "build-image.sh").path(), out.path(), image.path(),
          try context.tool(named: "swift").url.path(),
        ],
        inputFiles: inputs,
        outputFiles: [out.appending(path: "kernel.elf"), out.appending(path: "archive.tar")])
    ]
  }
}
