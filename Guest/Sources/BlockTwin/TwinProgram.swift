// The block twin driver: the data plane of a virtio block device in a process of its own, which holds the rings, one
// doorbell page and the message interrupt, and cannot reach the device's registers.

import BlockInterface
import BlockServer
import DriverControl
import Pollux

@main enum TwinProgram {
  static func main() {
    let start = Program.start
    guard let service = start.handle("service"), let control = start.handle("control"),
      let events = start.handle("data-events")
    else {
      Console.write("block-twin: started without its handles\n")
      return
    }
    do throws(SystemError) {
      let access = try DoorbellAccess(start)
      let polls = start.text("mode")?.equals("twin-poll") ?? false
      let plane = try TwinPlane(control: Endpoint(Handle(control)), access: access, polls: polls)
      access.report(by: "block-twin")
      try BlockServer(
        plane: plane, endpoint: Handle(service), events: Notification(Handle(events)), name: "vda",
        timeout: Program.requestTimeout(30_000), hasDoor: true
      ).run()
    } catch {
      var line = Text("block-twin: ")
      line.add(error.name)
      line.add("\n")
      line.print()
      Kernel.exit(1)
    }
  }
}
