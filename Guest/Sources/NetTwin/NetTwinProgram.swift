// The network twin driver: the data plane of a virtio network device in a process of its own, which holds the rings of both
// directions, their doorbell pages and message interrupts, and cannot reach the device's registers.

import DriverControl
import NetServer
import Pollux

@main enum NetTwinProgram {
  static func main() {
    let start = Program.start
    guard let service = start.handle("service"), let control = start.handle("control"),
      let events = start.handle("data-events")
    else {
      Console.write("net-twin: started without its handles\n")
      return
    }
    do throws(SystemError) {
      let access = try DoorbellAccess(start)
      let polls = start.text("mode")?.equals("twin-poll") ?? false
      let plane = try NetTwinPlane(control: Endpoint(Handle(control)), access: access, polls: polls)
      access.report(by: "net-twin")
      try NetServer(
        plane: plane, endpoint: Handle(service), events: Notification(Handle(events)), name: "eth0",
        timeout: Program.requestTimeout(5000)
      ).run()
    } catch {
      var line = Text("net-twin: ")
      line.add(error.name)
      line.add("\n")
      line.print()
      Kernel.exit(1)
    }
  }
}
