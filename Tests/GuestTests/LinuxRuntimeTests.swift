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
    #expect(run.console.contains(/WARNING: at test\/runtime_test.c:\d+ runtime_test\+0x[0-9a-f]+ \[linux-container\]/))
    // Nobody uses the disk, so nothing but the time wakes the container: 200 ms three times.
    for round in 1...3 {
      let line = try #require(
        run.lines.first { $0.contains("runtime test: work \(round) after ") }, "\(run.console)")
      let milliseconds = try #require(Int(line.split(separator: " ").dropLast().last ?? ""))
      #expect((round * 196..<round * 200 + 1500).contains(milliseconds), "\(line)")
    }
  }

  @Test func exceptionsGoOnWhereTheModuleSays() throws {
    let run = try run("runtime_test.list=3", until: "runtime test: all done")
    let lines = run.lines.filter { $0.contains("runtime test: ") || $0.contains("WARNING: at ") }
    let start = try #require(lines.firstIndex { $0.contains("runtime test: loads") }, "\(run.console)")
    let own = lines[start...].prefix(6).map { $0.replacing(/:\d+ runtime_test\+0x[0-9a-f]+/, with: "") }
    #expect(
      own == [
        // -EFAULT from an address where nothing is, and from one of the kernel's; -EIO from an instruction of ring 0.
        "linux: runtime test: loads 4711 -14 -14", "linux: runtime test: rdmsr -5",
        // One of three that are to come once.
        "linux: WARNING: at test/runtime_test.c [linux-container]",
        "linux: warning: runtime test: a warning with 42",
        "linux: WARNING: at test/runtime_test.c [linux-container]", "linux: runtime test: behind the warnings",
      ], "\(run.console)")
  }

  /// On the thread that initialises modules, and on a kthread.
  @Test func tasksWaitForEachOtherAndForTimes() throws {
    let run = try run("runtime_test.list=3", until: "runtime test: all done")
    let tasks = [
      "server server/5", "5 answers", "a wait that is in vain 1", "holders 0 of 0",
      "at most 1 inside, holders 3, took time 1", "server ended with 77", "timeout 0",
    ]
    let rest = [
      "rings 4 6, tasklets 4, pending 0 0", "taken back 1 0", "ordered work 0 1 2 3", "parallel work 3 2 1 0",
      "queued twice 0", "cancelled 1 0", "library: 80 checks, 0 failed", "all done",
    ]
    let prefix = "linux: runtime test: "
    let said = run.lines.filter { $0.hasPrefix(prefix) }.map { $0.dropFirst(prefix.count) }
      .filter { !$0.hasPrefix("work ") }
    let start = try #require(said.firstIndex(of: "in linux-container, 0"), "\(run.console)")
    #expect(
      Array(said[start...])
        == (["in linux-container, 0"] + tasks + ["in everything, 1"] + tasks + rest).map { $0[...] },
      "\(run.console)")
  }

  /// On a kthread.
  @Test(
    arguments: [
      ("bug", "kernel BUG at test/runtime_test.c:", "died of exception 6"),
      ("store", "unable to handle a store at 0x40: runtime_test+0x", "died of exception 14"),
      ("stack", "unable to handle a store at 0x", "died of exception 14"),
      ("deadlock", "panic: dies takes a mutex twice: 0x", "ended with code 3"),
    ]) func whatEndsTheContainerIsSaid(way: String, line: String, end: String) throws
  {
    let run = try run("runtime_test.die=\(way)", until: "init: block \(end)")
    let said = try #require(run.lines.first { $0.hasPrefix("linux: \(line)") }, "\(run.console)")
    #expect(way == "deadlock" || said.hasSuffix("[dies]"))
    #expect(!run.console.contains("not dead"))
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
