import Testing

@testable import Devices

@Suite struct ByteQueueTests {
  @Test(arguments: 0..<20 as Range<UInt64>)
  func behavesAsAnArrayWithALimit(seed: UInt64) {
    var random = SplitMix(state: seed)
    var queue = ByteQueue(limit: 300)
    var model: [UInt8] = []
    for step in 0..<3000 {
      let amount = Int.random(in: 0...120, using: &random)
      switch Int.random(in: 0..<5, using: &random) {
      case 0:
        let bytes = (0..<amount).map { UInt8(truncatingIfNeeded: $0 + step) }
        let accepted = bytes.withUnsafeBytes { queue.append($0) }
        #expect(accepted == min(amount, 300 - model.count))
        model += bytes[..<accepted]
      case 1:
        let taken = [UInt8](unsafeUninitializedCapacity: amount) { buffer, count in
          count = queue.take(into: UnsafeMutableRawBufferPointer(buffer))
        }
        #expect(taken == Array(model.prefix(amount)))
        model.removeFirst(taken.count)
      case 2:
        #expect(queue.append(UInt8(truncatingIfNeeded: step)) == (model.count < 300))
        if model.count < 300 { model.append(UInt8(truncatingIfNeeded: step)) }
      case 3: #expect(queue.popFirst() == (model.isEmpty ? nil : model.removeFirst()))
      default:
        queue.dropFirst(amount / 8)
        model.removeFirst(min(amount / 8, model.count))
      }
      #expect(queue.count == model.count && queue.room == 300 - model.count)
    }
  }
}
