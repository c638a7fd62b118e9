// init: reads the composition, starts its programs with exactly the handles each needs, and keeps the registry by which
// clients find services. It outlives them all and reports what ends.

import Pollux

@main enum Init {
  static func main() {
    let root = Handle(InitialHandle.root)
    let machine = Machine(root: root)
    do throws(SystemError) {
      _ = try Kernel.control(root, .calibrate, machine.clockFrequency)
      let supervisor = try Supervisor(machine: machine)
      supervisor.startAll()
      if machine.processors > 1 {
        let running = try Kernel.control(root, .startProcessors, UInt64(machine.processors))
        var line = Text("init: ")
        line.add(running)
        line.add(" processors run\n")
        line.log()
      }
      try supervisor.serve()
    } catch {
      var line = Text("init: cannot go on: ")
      line.add(error.name)
      line.add("\n")
      line.print()
    }
    Kernel.exit(1)
  }
}
