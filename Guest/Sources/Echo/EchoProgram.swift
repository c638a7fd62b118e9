// The least service that can be called, for each isolation class (HongMeng §4.2, Fig. 4): it answers with the words it got, and on
// request measures calls from its own class to another echo service.

import CPollux
import Pollux

@main enum Echo {
  static func main() {
    do throws(SystemError) {
      let service = try RPCService.createShort(stacks: 4, stackSize: 32 << 10, function: answer)
      try service.publish()
    } catch { Kernel.exit(1) }
    while true { Clock.sleep(microseconds: 60_000_000) }
  }
}

/// Word 0 of a call: an `EchoRequest`.
private let answer: RPCService.ShortHandler = { _, word0, word1, word2, word3, _ in
  guard word0 == EchoRequest.measure.rawValue else { return pollux_short_words(word0: word0, word1: word1) }
  var result = pollux_short_words(word0: 0, word1: 0)
  do throws(SystemError) {
    var name = Message()
    name[0] = word1
    name[1] = word2
    let text = name.text(at: 0, words: 2)
    let opened = text.withUnsafeBytes { bytes in
      bytes.baseAddress.flatMap { try? Connection.open(Bytes(unsafeBase: $0, count: bytes.count)) }
    }
    guard let target = opened else { throw SystemError.notFound }
    let start = Clock.now
    for _ in 0..<word3 { _ = try target.call(EchoRequest.echo.rawValue, 1) }
    result.word1 = Clock.now &- start
    target.handle.close()
  } catch { result.word0 = UInt64(bitPattern: error.rawValue) }
  return result
}
