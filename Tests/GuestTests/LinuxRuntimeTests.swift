// What Linux's side of the container does for modules besides their device, by a module that tries it (Guest/Linux/test).

import Configuration
import Foundation
import Testing

@Suite(
  .enabled(
    if: LinuxDrivers.arePresent && Host.castor.isAvailable, "needs KVM, and Linux's modules by make drivers"))
struct LinuxRuntimeTests {
  private func run(_ parameters: String, until text: String) throws -> GuestRun {
    let folder = try ScratchFolder()
    var description = GuestDescription(archive: try archive(in: folder))
    description.disk = try folder.file("disk.img", bytes: 1 << 20)
    description.services = [
      "name=block,program=linux-container,mode=solo,device=disk0,arguments=module=runtime_test \(parameters)"
    ]
    let guest = try description.start(on: .castor)
    #expect(guest.waitFor(text), "\(guest.console)")
    guest.process.terminate()
    return guest.finish(seconds: 30)
  }

  /// The built archive with the module of this suite.
  private func archive(in folder: ScratchFolder) throws -> String {
    let built = try #require(try HostPaths.findGuest().archive)
    let archive = "\(folder.path)/archive.tar"
    try FileManager.default.copyItem(atPath: built, toPath: archive)
    let tar = Process()
    tar.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    tar.arguments = [
      "tar", "--format=ustar", "-rf", archive, "-C", "\(HostPaths.folder(of: built))/linux-test",
      "--transform=s,^,linux/,", "runtime_test.ko",
    ]
    try tar.run()
    tar.waitUntilExit()
    try #require(tar.terminationStatus == 0)
    return archive
  }

  @Test func parametersWarningsAndDelayedWork() throws {
    let run = try run(
      [
        "small=0xfe", "negative=-7", "large=12345678901", "on", "off=N", "text=hello,,world", "name=seven77",
        "list=3,,-4,,5",
      ].map { "runtime_test.\($0)" }.joined(separator: " "), until: "runtime test: work 3")
    func has(_ line: String) -> Bool { run.lines.contains { $0 == "linux: runtime test: \(line)" } }
    #expect(
      has("small 254 negative -7 large 12345678901 on 1 off 0 text hello,world name seven77"), "\(run.console)")
    #expect(has("list of 3: 3 -4 5"), "\(run.console)")
    #expect(has("behind the warning"), "\(run.console)")
    // Nobody uses the disk, so nothing but the time wakes the container: 200 ms three times.
    for round in 1...3 {
      let line = try #require(
        run.lines.first { $0.contains("runtime test: work \(round) after ") }, "\(run.console)")
      let milliseconds = try #require(Int(line.split(separator: " ").dropLast().last ?? ""))
      #expect((round * 196..<round * 200 + 1500).contains(milliseconds), "\(line)")
    }
  }

  @Test(
    arguments: [
      ("small=256", "small", -34), ("negative=x", "negative", -22), ("name=eight888", "name", -28),
      ("list=1,,2,,3,,4,,5", "list", -22), ("on=perhaps", "on", -22),
    ]) func aValueThatDoesNotFitIsRefused(parameter: String, name: String, error: Int) throws
  {
    let run = try run("runtime_test.\(parameter)", until: "init: block ended")
    #expect(
      run.console.contains("runtime_test: parameter \(name) does not take this value, error \(error)"), "\(run.console)"
    )
    #expect(!run.console.contains("runtime test:"), "\(run.console)")
  }
}
