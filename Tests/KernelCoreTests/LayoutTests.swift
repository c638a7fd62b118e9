import PolluxABI
import Testing

@Test func sharedPagesLieAtTheTopOfSlot253() {
  #expect(AddressSpace.systemCallEntry + AddressSpace.pageSize == 254 << 39)
  #expect(AddressSpace.kernelInfo + AddressSpace.pageSize == AddressSpace.systemCallEntry)
  #expect(AddressSpace.clockPage + AddressSpace.pageSize == AddressSpace.kernelInfo)
}

@Test func recordsHaveTheirDocumentedSizes() {
  #expect(MemoryLayout<ProcessInfo>.size == 96)
  #expect(MemoryLayout<ThreadInfo>.size == 48)
}
