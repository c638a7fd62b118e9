import Glibc
import Testing

@testable import KVM

@Suite struct KVMErrorTests {
  @Test func anotherDeviceIsNotTakenForKVM() {
    do {
      _ = try KVMSystem(path: "/dev/null")
      Issue.record("took /dev/null for KVM")
    } catch {
      guard case .notKVM = error else {
        Issue.record("\(error)")
        return
      }
    }
  }

  @Test func missingDeviceNamesTheRemedy() {
    do {
      _ = try KVMSystem(path: "/nonexistent/kvm")
      Issue.record("opened a device that does not exist")
    } catch {
      #expect(error.description.contains("/dev/kvm does not exist"))
    }
  }
}

@Suite(.enabled(if: access("/dev/kvm", R_OK | W_OK) == 0, "needs /dev/kvm"))
struct KVMTests {
  @Test func hostOffersWhatAMachineNeeds() throws {
    let system = try KVMSystem()
    for capability in Capability.required { #expect(system.value(of: capability) != 0, "\(capability.name)") }
    #expect(try !system.supportedCPUID().isEmpty)
  }

  @Test func ringZeroProbeAgreesWithTheHostsFlags() throws {
    let probed = try KVMSystem().probeRingZero()
    let flags = (try? String(contentsOfFile: "/proc/cpuinfo")) ?? ""
    let hardware = flags.contains(" vmx") || flags.contains(" svm")
    #expect(probed == (hardware ? .native : .emulated))
  }

  @Test func messageRoutesCanBeChangedWhileTheMachineLives() throws {
    let machine = try VirtualMachine(system: try KVMSystem())
    let first = machine.allocateMessageGSI()
    let second = machine.allocateMessageGSI()
    #expect(first != second && first >= 24)
    try machine.setMessage(gsi: first, message: (0xfee0_0000, 0x41))
    try machine.setMessage(gsi: first, message: nil)
  }
}

extension String {
  fileprivate init(contentsOfFile path: String) throws {
    var text: [UInt8] = []
    guard let file = fopen(path, "r") else { throw KVMError.absent }
    defer { fclose(file) }
    var byte = getc(file)
    while byte != EOF {
      text.append(UInt8(byte))
      byte = getc(file)
    }
    self = String(decoding: text, as: UTF8.self)
  }
}
