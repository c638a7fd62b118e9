// Where this program finds what the kernel shows it and where it may map memory: the same source is built for processes (class IC2)
// and once more for services in kernel space (IC0, IC1; HongMeng §4.2), whose part of the address space is a window.

import CPollux

enum ProgramSpace {
  #if POLLUX_KERNEL_SPACE
    /// Address of the kernel-info page.
    static let kernelInfo = AddressSpace.serviceInfo
    /// Start of the window that the loader chose.
    static var start: UInt64 { pollux_image_start() & ~(AddressSpace.serviceWindow - 1) }
    /// The first address for mappings, from `start`.
    static let firstMapping: UInt64 = 2 << 30
  #else
    static let kernelInfo = AddressSpace.kernelInfo
    static let start: UInt64 = 0
    static let firstMapping: UInt64 = 64 << 30
  #endif
}
