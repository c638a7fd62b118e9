// What access to a kernel object costs (HongMeng §4.4, Fig. 6): by address token a load, a store, or the verified vectored write of a
// read-only object; against a capability table, where every access is a system call that looks the handle up and checks it.

import BenchReport
import Pollux

@main enum BenchTokens {
  static func main() {
    var bench = Bench("tokens")
    do throws(SystemError) {
      try readWrite(&bench)
      try readOnly(&bench)
      try notification(&bench)
      try revocation(&bench)
    } catch { bench.fail("the kernel refuses", error) }
    bench.finish()
  }

  /// A ring page: its holders read and write its words themselves.
  private static func readWrite(_ bench: inout Bench) throws(SystemError) {
    let token = try Token.create(.ring)
    let handle = try token.handle()
    let word: UInt64 = 64
    var failures = 0
    var sum: UInt64 = 0
    bench.measure("read/capability") {
      if let value = access(handle, word, nil) { sum &+= value } else { failures += 1 }
    }
    bench.measure("read/token", baseline: "read/capability") { sum &+= token.load(word) }
    bench.measure("write/capability") { if access(handle, word, 7) == nil { failures += 1 } }
    bench.measure("write/token", baseline: "write/capability") { token.store(9, at: word) }
    if failures != 0 || access(handle, word, nil) != 9 { bench.fail("an access failed, or did not reach the object") }
    handle.close()
    token.drop()
    _ = sum
  }

  /// This thread's parameters: everybody may look, the kernel writes what is allowed.
  private static func readOnly(_ bench: inout Bench) throws(SystemError) {
    let token = try Token.create(.processAccount)
    let handle = try token.handle()
    var failures = 0
    let offset = AccountPage.budget
    bench.measure("write-read-only/capability") { if access(handle, offset, 1 << 40) == nil { failures += 1 } }
    bench.measure("write-read-only/token", baseline: "write-read-only/capability") {
      do throws(SystemError) { try token.update(offset, to: 1 << 41) } catch { failures += 1 }
    }
    let vector = [TokenUpdate(token: token.address, offset: offset, value: 1 << 41)]
    bench.measure("write-read-only/vector", baseline: "write-read-only/capability") {
      do throws(SystemError) { try Token.write(vector) } catch { failures += 1 }
    }
    if failures != 0 || token.load(offset) != 1 << 41 { bench.fail("an update failed, or did not reach the object") }
    handle.close()
    token.drop()
  }

  /// A bit set and taken again, with nobody waiting.
  private static func notification(_ bench: inout Bench) throws(SystemError) {
    let plain = try Notification.create()
    bench.measure("signal-and-poll/capability") {
      plain.signal(1)
      _ = plain.poll()
    }
    let shared = try TokenNotification.create()
    bench.measure("signal-and-poll/token", baseline: "signal-and-poll/capability") {
      shared.signal(1)
      _ = shared.poll()
    }
    plain.handle.close()
    shared.token.drop()
  }

  /// Granting and taking back, which capabilities do not have here at all.
  private static func revocation(_ bench: inout Bench) throws(SystemError) {
    let token = try Token.create(.ring)
    var failures = 0
    bench.measure("grant-and-revoke/token") {
      do throws(SystemError) {
        _ = try token.grant([.read, .write])
        try token.revokeDerived()
      } catch { failures += 1 }
    }
    if failures != 0 { bench.fail("a token could not be granted or revoked") }
    token.drop()
  }

  /// Reads (nil) or writes a word through the handle; nil if refused.
  private static func access(_ handle: Handle, _ offset: UInt64, _ value: UInt64?) -> UInt64? {
    do throws(SystemError) {
      return try Token.access(handle, offset, value)
    } catch { return nil }
  }
}
