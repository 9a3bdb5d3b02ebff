import Netback
import RingKit
import Simulator
import Testing

/// Control messages 1 to 7: what a frontend sets about hashes, with every status that netif.h gives them.
struct ControlHashTests {
  @Test func flagsNeedAnAlgorithm() throws {
    let fixture = try ControlFixture()
    #expect(try fixture.status(.getHashFlags) == .notSupported)
    #expect(try fixture.status(.setHashFlags, 1) == .invalidParameter)
    #expect(fixture.world.hash.types == [] && fixture.host.hashCount == 0)
    #expect(try fixture.status(.setHashAlgorithm, 1) == .success)
    let response = try fixture.ask(.getHashFlags)
    #expect(response.status == 0 && response.data == 15)
    for flags: UInt32 in 0..<16 {
      #expect(try fixture.status(.setHashFlags, flags) == .success)
      #expect(fixture.host.hash.types.rawValue == flags)
      #expect(fixture.host.hash.isEnabled == (flags != 0))
    }
    for flags: UInt32 in [16, 0x8000_0000, .max] {
      #expect(try fixture.status(.setHashFlags, flags) == .invalidParameter)
    }
    #expect(fixture.world.hash.types == .all)
  }

  @Test func algorithms() throws {
    let fixture = try ControlFixture()
    for number: UInt32 in [2, 3, 0xFFFF_0001, .max] {
      #expect(try fixture.status(.setHashAlgorithm, number) == .invalidParameter)
    }
    #expect(fixture.world.hash.algorithm == .none)
    #expect(try fixture.status(.setHashAlgorithm, 1) == .success)
    #expect(fixture.host.hash.algorithm == .toeplitz && !fixture.host.hash.isEnabled)
    #expect(try fixture.status(.setHashFlags, 1) == .success)
    #expect(try fixture.status(.setHashAlgorithm, 0) == .success)
    #expect(fixture.host.hash.algorithm == .none && !fixture.host.hash.isEnabled)
    #expect(try fixture.status(.getHashFlags) == .notSupported)
  }

  @Test func trap37_aShorterKeyIsFollowedByZeros() throws {
    let fixture = try ControlFixture()
    let long = (1...40).map { UInt8($0) }
    let grant = fixture.grant(bytes: long)
    #expect(try fixture.status(.setHashKey, grant, 40) == .success)
    #expect(fixture.host.hash.key == long)
    for count in [39, 8, 1] {
      #expect(try fixture.status(.setHashKey, grant, UInt32(count)) == .success)
      #expect(
        fixture.host.hash.key == Array(long.prefix(count)) + [UInt8](repeating: 0, count: 40 - count))
    }
    #expect(try fixture.status(.setHashKey, grant, 40) == .success)
    // A size of zero clears the key; its reference means nothing and nothing is copied.
    let copies = fixture.host.copyCount
    #expect(try fixture.status(.setHashKey, 0xDEAD_BEEF, 0) == .success)
    #expect(fixture.host.copyCount == copies)
    #expect(fixture.host.hash.key == [UInt8](repeating: 0, count: 40))
  }

  @Test func aKeyThatCannotBeTakenChangesNothing() throws {
    let fixture = try ControlFixture()
    let key = (1...40).map { UInt8($0) }
    let grant = fixture.grant(bytes: key)
    #expect(try fixture.status(.setHashKey, grant, 40) == .success)
    let copies = fixture.host.copyCount
    for count: UInt32 in [41, 64, 4096, 4097, 0x8000_0000, .max] {
      #expect(try fixture.status(.setHashKey, grant, count) == .bufferOverflow)
    }
    #expect(fixture.host.copyCount == copies)
    #expect(try fixture.status(.setHashKey, 0xDEAD_BEEF, 40) == .invalidParameter)
    #expect(fixture.host.hash.key == key && fixture.world.hash.key == key)
  }

  @Test func aNewMappingIsZero() throws {
    let fixture = try ControlFixture()
    #expect(try fixture.ask(.getHashMappingSize).data == 128)
    #expect(fixture.world.hash.mapping.isEmpty)
    for count: UInt32 in [129, 1 << 16, 1 << 31, .max] {
      #expect(try fixture.status(.setHashMappingSize, count) == .invalidParameter)
    }
    #expect(try fixture.status(.setHashMappingSize, 128) == .success)
    #expect(fixture.host.hash.mapping == [UInt16](repeating: 0, count: 128))
    let grant = fixture.grant((0..<128).map { UInt32($0) % 4 })
    #expect(try fixture.status(.setHashMapping, grant, 128, 0) == .success)
    #expect(fixture.host.hash.mapping == (0..<128).map { UInt16($0) % 4 })
    #expect(try fixture.status(.setHashMappingSize, 3) == .success)
    #expect(fixture.host.hash.mapping == [0, 0, 0])
    #expect(try fixture.status(.setHashMappingSize, 0) == .success)
    #expect(fixture.host.hash.mapping.isEmpty)
    let hash = NetHash(type: .ipv4, algorithm: 1, value: 0xFFFF_FFFF)
    #expect(fixture.host.hash.queue(for: hash, queueCount: 4) == 3)
    #expect(fixture.host.hash.queue(for: nil, queueCount: 4) == 0)
  }

  @Test func partsOfAMappingAreSetOneByOne() throws {
    let fixture = try ControlFixture()
    #expect(try fixture.status(.setHashMappingSize, 5) == .success)
    let grant = fixture.grant([3, 2, 1, 3, 2])
    #expect(try fixture.status(.setHashMapping, grant, 2, 0) == .success)
    #expect(fixture.host.hash.mapping == [3, 2, 0, 0, 0])
    #expect(try fixture.status(.setHashMapping, grant, 3, 2) == .success)
    #expect(fixture.host.hash.mapping == [3, 2, 3, 2, 1])
    #expect(try fixture.status(.setHashMapping, grant, 0, 5) == .success)
    #expect(try fixture.status(.setHashMapping, 0xDEAD_BEEF, 0, 0) == .success)
    #expect(try fixture.status(.setHashMapping, 0xDEAD_BEEF, 1, 0) == .invalidParameter)
    #expect(fixture.host.hash.mapping == [3, 2, 3, 2, 1])
    for value: UInt32 in 0..<12 {
      let hash = NetHash(type: .ipv4, algorithm: 1, value: value)
      #expect(fixture.host.hash.queue(for: hash, queueCount: 4) == [3, 2, 3, 2, 1][Int(value) % 5])
      // Whatever the mapping says, the queue exists.
      #expect(fixture.host.hash.queue(for: hash, queueCount: 2) < 2)
    }
  }

  /// XSA-270: every combination of size, count and offset that an addition or a comparison could get wrong.
  @Test func trap36_noRangeReachesPastTheMapping() throws {
    let edges: [UInt32] = [
      0, 1, 2, 63, 64, 65, 127, 128, 129, 1024, 1025, 0x3FFF_FFFF, 0x4000_0000, 0x7FFF_FFFF, 0x8000_0000,
      0xFFFF_FF80, 0xFFFF_FFC0, 0xFFFF_FFFE, 0xFFFF_FFFF,
    ]
    let fixture = try ControlFixture()
    let grant = fixture.grant([UInt32](repeating: 1, count: 1024))
    for size: UInt32 in [0, 1, 64, 128] {
      for count in edges {
        for first in edges {
          #expect(try fixture.status(.setHashMappingSize, size) == .success)
          let copies = fixture.host.copyCount
          let end = UInt64(first) + UInt64(count)
          let expected: NetControlStatus =
            end > 128 ? .bufferOverflow : end > UInt64(size) ? .invalidParameter : .success
          let status = try fixture.status(.setHashMapping, grant, count, first)
          #expect(status == expected, "size \(size), count \(count), first \(first)")
          #expect(fixture.host.copyCount - copies == (expected == .success && count > 0 ? 1 : 0))
          #expect(fixture.host.hash.mapping.count == Int(size))
          let ones = fixture.host.hash.mapping.count { $0 == 1 }
          #expect(ones == (expected == .success ? Int(count) : 0))
        }
      }
    }
  }

  /// XSA-270: entries are judged on the private copy, and a table with a bad one leaves the old one whole.
  @Test func trap36_entriesAreJudgedAfterTheCopy() throws {
    let fixture = try ControlFixture { $0.queueCount = 3 }
    #expect(try fixture.status(.setHashMappingSize, 8) == .success)
    let good = fixture.grant([0, 1, 2, 0, 1, 2, 0, 1])
    #expect(try fixture.status(.setHashMapping, good, 8, 0) == .success)
    for place in 0..<8 {
      for value: UInt32 in [3, 4, 0xFFFF, 0x1_0000, 0x1_0001, 0x8000_0000, .max] {
        var words: [UInt32] = [2, 2, 2, 2, 2, 2, 2, 2]
        words[place] = value
        let bad = fixture.grant(words, page: 1)
        #expect(try fixture.status(.setHashMapping, bad, 8, 0) == .invalidParameter)
      }
    }
    // Neither what the queues have nor what the next change would tell them.
    #expect(fixture.host.hash.mapping == [0, 1, 2, 0, 1, 2, 0, 1])
    #expect(fixture.world.hash.mapping == [0, 1, 2, 0, 1, 2, 0, 1])
    // The guest changes the page as soon as it was read: nobody looks at it again.
    let memory = fixture.guest.memory
    fixture.host.onGuestRead = { page in
      memory.setBytes([UInt8](repeating: 0xFF, count: pageByteCount), at: page * pageByteCount)
    }
    let changing = fixture.grant([1, 1, 1, 1, 1, 1, 1, 1], page: 2)
    #expect(try fixture.status(.setHashMapping, changing, 8, 0) == .success)
    #expect(fixture.host.hash.mapping == [1, 1, 1, 1, 1, 1, 1, 1])
  }

  /// The number of queues is known from the keys; nothing else of them is needed.
  @Test func trap36_aMappingMayBeSetBeforeQueuesExist() throws {
    let fixture = try ControlFixture { $0.queueCount = 64 }
    fixture.host.dropQueues()
    #expect(try fixture.status(.setHashMappingSize, 2) == .success)
    #expect(try fixture.status(.setHashMapping, fixture.grant([63, 0]), 2, 0) == .success)
    #expect(fixture.world.hash.mapping == [63, 0])
    #expect(try fixture.status(.setHashMapping, fixture.grant([64, 0]), 2, 0) == .invalidParameter)
  }

  /// Copies that fail now and then fail the request, and never bring old bytes to light.
  @Test func failedCopiesChangeNothing() throws {
    let fixture = try ControlFixture()
    let key = [UInt8](repeating: 7, count: 40)
    let grants = (fixture.grant(bytes: key), fixture.grant([2, 2], page: 1))
    #expect(try fixture.status(.setHashMappingSize, 2) == .success)
    fixture.host.faults.copyFailure = 1000
    #expect(try fixture.status(.setHashKey, grants.0, 40) == .invalidParameter)
    #expect(try fixture.status(.setHashMapping, grants.1, 2, 0) == .invalidParameter)
    #expect(fixture.world.hash.key.allSatisfy { $0 == 0 } && fixture.world.hash.mapping == [0, 0])
    fixture.host.faults.copyFailure = 0
    #expect(try fixture.status(.setHashKey, grants.0, 40) == .success)
    #expect(try fixture.status(.setHashMapping, grants.1, 2, 0) == .success)
    #expect(fixture.host.hash.key == key && fixture.host.hash.mapping == [2, 2])
  }

  /// A frontend that was told of a success finds it in force.
  @Test func queuesAreToldBeforeTheFrontend() throws {
    let fixture = try ControlFixture()
    for round in 1...20 {
      #expect(try fixture.status(.setHashAlgorithm, UInt32(round % 2)) == .success)
      #expect(fixture.host.hashCount == round && fixture.host.hashCountAtNotify == round)
    }
    // What was only asked about tells nobody anything.
    #expect(try fixture.status(.getHashMappingSize) == .success)
    #expect(fixture.host.hashCount == 20)
  }
}
