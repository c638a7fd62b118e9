// The allocator behind Swift's objects and arrays: power-of-two size classes over memory objects.

import CPollux
import Synchronization

/// Next address for `Mapping`, from the start of the program's part of the address space.
let nextMapping = Atomic<UInt64>(ProgramSpace.firstMapping)

private let heapLock = Atomic<Bool>(false)
/// Free blocks of each class, linked through their first word. Only touched under `heapLock`.
nonisolated(unsafe) private var freeBlocks = InlineArray<48, UInt>(repeating: 0)
/// Memory not yet handed out.
nonisolated(unsafe) private var spare: UInt = 0
nonisolated(unsafe) private var spareEnd: UInt = 0

/// Every block has a header of this size before it: its class and the offset back to the block's start.
private let headerSize: UInt = 16
private let chunkSize: UInt = 64 << 10

private func lockHeap() {
  var tries = 0
  while heapLock.exchange(true, ordering: .acquiring) {
    tries += 1
    if tries > 100 {
      // Sleeping, not yielding: whoever holds the lock may be less urgent, with a caller's priority in a server.
      Clock.sleep(microseconds: 100)
      tries = 0
    } else {
      pollux_pause()
    }
  }
}

/// A block of 2^`kind` bytes, or 0 when the kernel has no memory. Called under the lock.
private func takeBlock(_ kind: Int) -> UInt {
  let head = freeBlocks[kind]
  if head != 0, let link = UnsafePointer<UInt>(bitPattern: head) {
    // A free block of ours holds the address of the next one in its first word.
    freeBlocks[kind] = link.pointee
    return head
  }
  let size: UInt = 1 << UInt(kind)
  if spareEnd - spare < size {
    let chunk = (max(size, chunkSize) + 4095) & ~4095
    let address = Mapping.reserve(UInt64(chunk))
    do throws(SystemError) {
      try MemoryObject.create(UInt64(chunk)).map(at: address, size: UInt64(chunk), [.read, .write])
    } catch { return 0 }
    spare = UInt(address)
    spareEnd = spare + chunk
  }
  let block = spare
  spare += size
  return block
}

@c(pollux_allocate)
public func allocate(_ alignment: Int, _ size: Int) -> UnsafeMutableRawPointer? {
  guard size >= 0, size < 1 << 40, alignment <= 1 << 20 else { return nil }
  let alignment = UInt(max(alignment, 16))
  let needed = UInt(size) + headerSize + (alignment > 16 ? alignment : 0)
  var kind = 5
  while (1 as UInt) << UInt(kind) < needed { kind += 1 }
  lockHeap()
  let block = takeBlock(kind)
  heapLock.store(false, ordering: .releasing)
  guard block != 0 else { return nil }
  let start = (block + headerSize + alignment - 1) & ~(alignment - 1)
  guard let header = UnsafeMutablePointer<UInt>(bitPattern: start - headerSize) else { return nil }
  // The header lies inside the block: start is at least `headerSize` beyond its beginning.
  header[0] = UInt(kind)
  header[1] = start - block
  return UnsafeMutableRawPointer(bitPattern: start)
}

@c(pollux_release)
public func release(_ pointer: UnsafeMutableRawPointer?) {
  guard let pointer else { return }
  let start = UInt(bitPattern: pointer)
  guard let header = UnsafePointer<UInt>(bitPattern: start - headerSize) else { return }
  // `allocate` wrote the header of every pointer it returned.
  let kind = Int(header[0])
  let block = start - header[1]
  precondition(kind < 48)
  lockHeap()
  if let link = UnsafeMutablePointer<UInt>(bitPattern: block) {
    link.pointee = freeBlocks[kind]
    freeBlocks[kind] = block
  }
  heapLock.store(false, ordering: .releasing)
}
