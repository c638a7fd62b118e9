// Where Swift begins.
import CArch

@c(kernel_start) public func kernelStart(startInfo: UInt64, entryTime: UInt64) {
  port_write8(0x3f8, 0x70)
  port_write8(0x3f8, 0x0a)
}

@main enum Kernel { static func main() {} }
