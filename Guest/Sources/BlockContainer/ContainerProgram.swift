// The block driver's container: the control plane of a virtio block device. It alone reaches the registers: reset, feature
// negotiation, queue set-up, configuration interrupt, errors and re-initialisation. In mode `solo` it does the data
// plane as well.

import BlockInterface
import BlockServer
import DriverControl
import Pollux

@main enum ContainerProgram {
  static func main() {
    let start = Program.start
    do throws(SystemError) {
      guard let service = start.handle("service"), let events = start.handle("line-events") else { throw .notFound }
      let device = try ControlledDevice(start)
      if start.text("mode")?.equals("solo") ?? false {
        guard device.bringUp() else { Kernel.exit(2) }
        Program.remark(Bytes(SoloPlane.remark))
        let wake = try Notification.create()
        let plane = try SoloPlane(device, line: Notification(Handle(events)), wake: wake)
        try BlockServer(
          plane: plane, endpoint: Handle(service), events: wake, name: "vda", timeout: Program.requestTimeout(30_000)
        ).run()
      } else {
        try Endpoint(Handle(service)).bind(Notification(Handle(events)))
        Program.remark(Bytes(device.remark))
        var server = ControlServer(device: device, endpoint: Handle(service))
        try server.run()
      }
    } catch {
      complain(error.name)
      Kernel.exit(1)
    }
  }

  static func complain(_ what: StaticString) {
    var line = Text("block-container: ")
    line.add(what)
    line.add("\n")
    line.print()
    line.log()
  }
}
