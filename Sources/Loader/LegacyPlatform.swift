// What kernels that read no device tree need besides: an MP table, and their virtio devices on the command line.

import GuestMemory

extension LoadInProgress {
  /// The command line with one `virtio_mmio.device=SIZE@ADDRESS:IRQ` argument a device (Linux's
  /// Documentation/admin-guide/kernel-parameters.txt). They go before a "--", behind which is what init gets.
  func commandLineWithDevices() -> String {
    let arguments = request.platform.virtioDevices.map { device in
      "virtio_mmio.device=4K@0x\(String(device.address.rawValue, radix: 16)):\(device.gsi)"
    }
    guard !arguments.isEmpty else { return request.platform.commandLine }
    var words = request.platform.commandLine.split(separator: " ", omittingEmptySubsequences: true).map(String.init)
    words.insert(contentsOf: arguments, at: words.firstIndex(of: "--") ?? words.endIndex)
    return words.joined(separator: " ")
  }

  /// Writes the MP table.
  func writeMPTable() throws(LoaderError) {
    let count = request.platform.processorCount
    guard count <= MPTable.processorLimit else {
      throw LoaderError(
        path: request.kernelPath,
        problem: .platformNotDescribable("\(count) processors, of which an MP table can name \(MPTable.processorLimit)")
      )
    }
    try write { () throws(GuestMemoryError) in try MPTable.write(request.platform, to: memory) }
  }
}
