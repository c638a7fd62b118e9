// The order of loading.

import Testing

@testable import LinuxModules

@Suite struct ModuleOrderTests {
  private func order(_ modules: [(String, [String])]) throws(ModuleError) -> [String] {
    let entries = modules.map { ModuleOrder.Entry(name: Name($0), dependencies: $1.map { Name($0) }) }
    return try ModuleOrder.order(entries).map { modules[$0].0 }
  }

  @Test func dependenciesComeFirst() throws {
    #expect(
      try order([
        ("virtio_net", ["net_failover", "virtio", "virtio_ring"]), ("virtio_ring", []), ("failover", []),
        ("net_failover", ["failover"]), ("virtio", ["virtio_ring"]), ("rng", []),
      ]) == ["failover", "net_failover", "virtio_ring", "virtio", "virtio_net", "rng"])
    #expect(try order([]) == [])
  }

  @Test func aChainOfManyIsNoDepthOfStack() throws {
    let count = 20_000
    let chain = (0..<count).map { ("m\($0)", $0 + 1 < count ? ["m\($0 + 1)"] : []) }
    #expect(try order(chain).first == "m\(count - 1)")
  }

  @Test func cyclesAndGapsAreNamed() throws {
    var error = try #require(throws: ModuleError.self) {
      try order([("start", ["a"]), ("a", ["b"]), ("b", ["c"]), ("c", ["a"])])
    }
    #expect(error.text == "module a: depends on itself: a b c a")
    error = try #require(throws: ModuleError.self) { try order([("a", ["a"])]) }
    #expect(error.text == "module a: depends on itself: a a")
    error = try #require(throws: ModuleError.self) { try order([("a", ["gone"])]) }
    #expect(error.text == "module a: depends on gone, which is not there")
    error = try #require(throws: ModuleError.self) { try order([("a", []), ("a", [])]) }
    #expect(error.reason == .duplicateModule)
  }
}
