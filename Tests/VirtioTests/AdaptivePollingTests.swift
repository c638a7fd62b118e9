// How long a device's thread looks for work before it sleeps.

import BlockStorage
import Testing

@testable import Virtio

@Suite struct AdaptivePollingTests {
  private static let limit: UInt64 = 200_000

  @Test func aNewDeviceDoesNotPoll() {
    #expect(AdaptivePolling(maximum: Self.limit).span == 0)
  }

  @Test(arguments: [1_000, 8_000, 40_000, 150_000, 200_000] as [UInt64])
  func afterAWakeUpThatASlightlyLongerLookHadSavedTheLookIsLongerThanTheGap(gap: UInt64) {
    var polling = AdaptivePolling(maximum: Self.limit)
    polling.woken(after: gap)
    #expect(polling.span >= gap)
    #expect(polling.span <= Self.limit)
  }

  @Test func workThatIsRarerThanTheLimitEndsThePolling() {
    var polling = AdaptivePolling(maximum: Self.limit)
    polling.woken(after: 150_000)
    for _ in 0..<6 { polling.woken(after: 10_000_000) }
    #expect(polling.span == 0)
  }

  @Test func oneLongPauseDoesNotEndThePolling() {
    var polling = AdaptivePolling(maximum: Self.limit)
    polling.woken(after: 150_000)
    polling.woken(after: 10_000_000)
    #expect(polling.span > 0)
  }

  @Test func withoutALimitThereIsNoPolling() {
    var polling = AdaptivePolling(maximum: 0)
    polling.woken(after: 0)
    #expect(polling.span == 0)
  }

  @Test func theDeviceStillSleepsAfterManyQuickRequests() throws {
    let driver = try BlockDriver(NullBackend(byteCount: 1 << 20))
    for _ in 0..<2000 { #expect(try driver.perform(4).status == 0) }
    #expect(driver.machine.sleeps())
  }
}
