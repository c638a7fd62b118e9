// The state that a container sends its twin arrives as it was sent.

import BlockInterface
import Testing

@Suite struct ControlMessageTests {
  @Test func deviceStateSurvivesTheMessage() {
    var state = DeviceState()
    state.isLost = false
    state.segmentLimit = 1 << 20
    state.dataSegments = 3
    state.geometry = BlockGeometry(sectors: 1 << 40, blockSize: 4096, maximumTransfer: 3 << 20)
    state.geometry.flags = 0b1010
    state.queueSize = 256
    state.features = 1 << 32 | 1 << 29
    state.queueAddress = 0x7fff_f000
    state.completionAddress = 0x1234_5000
    state.generation = 77
    var words = [UInt64](repeating: 0, count: 8)
    state.encode { words[$0] = $1 }
    #expect(DeviceState { words[$0] } == state)
    words[0] = 1
    #expect(DeviceState { words[$0] }.isLost)
  }
}
