// The console shell: a prompt on the serial line, with line editing and a few commands that look into the system.

import Pollux

@main enum ConsoleProgram {
  static func main() {
    let start = Program.start
    guard let input = start.handle("input") else {
      Console.write("console: started without an input notification\n")
      return
    }
    Program.announce(Bytes("console"), .console)
    let archive = openArchive(start)
    var shell = Shell(archive: archive)
    shell.run(input: Notification(Handle(input)))
  }

  private static func openArchive(_ start: StartBlock) -> TapeArchive {
    guard let handle = start.handle("archive"), let size = start.number("archive-size") else {
      return TapeArchive(Bytes(""))
    }
    do throws(SystemError) {
      let mapping = try MemoryObject(Handle(handle)).map(.read)
      // Mapped for the life of the process.
      return TapeArchive(
        Bytes(unsafeBase: UnsafeRawPointer(mapping.base), count: min(Int(size), mapping.size)))
    } catch { return TapeArchive(Bytes("")) }
  }
}
