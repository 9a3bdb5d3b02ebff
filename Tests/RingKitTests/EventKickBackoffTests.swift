import RingKit
import Testing

@Suite struct EventKickBackoffTests {
  @Test func kicksWithACauseCostNothing() {
    var backoff = KickBackoff()
    for _ in 0..<1000 {
      backoff.note(kicked: true, tookSomething: true)
      #expect(backoff.unmaskDelayNanoseconds == 0)
    }
    #expect(backoff.kickCount == 1000)
    #expect(backoff.spuriousCount == 0)
  }

  @Test func aKickThatIsOnlyLateHasACause() {
    var backoff = KickBackoff()
    for _ in 0..<1000 {
      backoff.note(kicked: false, tookSomething: true)
      backoff.note(kicked: true, tookSomething: false)
    }
    #expect(backoff.spuriousCount == 0)
    #expect(backoff.unmaskDelayNanoseconds == 0)
  }

  @Test func kicksWithoutACauseDelayMoreAndMore() {
    var backoff = KickBackoff()
    for _ in 0..<KickBackoff.freeCount {
      backoff.note(kicked: true, tookSomething: false)
      #expect(backoff.unmaskDelayNanoseconds == 0)
    }
    var expected: UInt64 = 1_000_000
    for _ in 0..<100 {
      backoff.note(kicked: true, tookSomething: false)
      #expect(backoff.unmaskDelayNanoseconds == min(expected, KickBackoff.longestNanoseconds))
      expected = min(expected * 2, 1 << 40)
    }
    #expect(backoff.spuriousCount == KickBackoff.freeCount + 100)
    // Completions without kicks change nothing, and honest work forgives.
    backoff.note(kicked: false, tookSomething: false)
    #expect(backoff.unmaskDelayNanoseconds == KickBackoff.longestNanoseconds)
    backoff.note(kicked: true, tookSomething: true)
    #expect(backoff.unmaskDelayNanoseconds == 0)
  }

  @Test func oneTakingExcusesOneKick() {
    var backoff = KickBackoff()
    backoff.note(kicked: false, tookSomething: true)
    backoff.note(kicked: true, tookSomething: false)
    backoff.note(kicked: true, tookSomething: false)
    #expect(backoff.spuriousCount == 1)
  }
}
