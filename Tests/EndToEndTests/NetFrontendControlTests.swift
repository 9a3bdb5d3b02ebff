import Netback
import RingKit
import Testing

@testable import Frontends

/// The control ring as a frontend uses it (netif.h, "Control ring"; net.md 1.7).
@Suite(.serialized, .timeLimit(.minutes(10))) struct NetFrontendControlTests {
  private func connected(_ world: NetFrontendWorld) throws -> NetFrontend {
    var options = NetFrontendOptions()
    options.usesControlRing = true
    options.queueCount = 2
    options.firstRingIndex = 0xFFFF_FFF0
    return try world.connected(options)
  }

  @Test func everyRequestSaysWhatTheHeaderAsksFor() throws {
    let world = try NetFrontendWorld()
    let backend = try world.backend()
    let frontend = try connected(world)
    try backend.perform { backend in
      let control = try #require(backend.control)
      for type in 1...10 {
        control.answers[NetControlType(rawValue: UInt16(type))] = (.success, 40 + UInt32(type))
      }
      control.listStatus = 2
    }
    let data = try #require(frontend.control?.dataReference.rawValue)
    try frontend.setHashAlgorithm(1)
    #expect(try frontend.hashFlags() == 41)
    try frontend.setHashFlags(0xF)
    try frontend.setHashKey(Array(1...40))
    #expect(try frontend.hashMappingSize() == 44)
    try frontend.setHashMappingSize(128)
    try frontend.setHashMapping([1, 0, 0x0102_0304], from: 7)
    #expect(try frontend.grantMappingSize(of: 1) == 48)
    let grants = [
      NetFrontend.StagingGrant(reference: GrantReference(rawValue: 0x0A0B_0C0D), isReadOnly: true),
      NetFrontend.StagingGrant(reference: GrantReference(rawValue: 5), isReadOnly: false),
    ]
    try frontend.addGrantMapping(grants, to: 1)
    let (count, left) = try frontend.deleteGrantMapping(grants, of: 1)
    #expect(count == 50)
    #expect(left.map(\.status) == [2, 2] && left.map(\.reference) == grants.map(\.reference))
    #expect(left.map(\.isReadOnly) == [true, false])
    let requests = try backend.perform { try #require($0.control).requests }
    #expect(
      requests.map { "\($0.request.type.rawValue) \($0.request.data)" } == [
        "7 (1, 0, 0)", "1 (0, 0, 0)", "2 (15, 0, 0)", "3 (\(data), 40, 0)", "4 (0, 0, 0)", "5 (128, 0, 0)",
        "6 (\(data), 3, 7)", "8 (1, 0, 0)", "9 (1, \(data), 2)", "10 (1, \(data), 2)",
      ])
    #expect(Array(requests[3].bytes[0..<40]) == Array(1...40))
    #expect(Array(requests[6].bytes[0..<12]) == [1, 0, 0, 0, 0, 0, 0, 0, 4, 3, 2, 1])
    #expect(
      Array(requests[8].bytes[0..<16]) == [0x0D, 0x0C, 0x0B, 0x0A, 1, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0])
    try frontend.stageAllPages()
    // 512 pages of each queue, as many as a list holds.
    let lists = try backend.perform { try #require($0.control).requests.suffix(2) }
    #expect(lists.map { "\($0.request.data)" } == ["(0, \(data), 512)", "(1, \(data), 512)"])
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try backend.stop()
  }

  @Test func refusalsAreTold() throws {
    let world = try NetFrontendWorld()
    let backend = try world.backend()
    let frontend = try connected(world)
    let error = #expect(throws: NetFrontendError.self) { try frontend.setHashFlags(1) }
    guard case .refused(.setHashFlags, status: 1) = error else {
      Issue.record("\(String(describing: error))")
      return
    }
    #expect(try frontend.ask(NetControlType(rawValue: 77), 1, 2, 3).status == 1)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    try backend.stop()
  }

  /// A control ring and the backend's end of it.
  private struct Bench: ~Copyable {
    let control: NetFrontendControl
    var back: BackRing

    init() throws {
      let ring = try sharedPages(1)
      let control = NetFrontendControl(
        ringPages: ring, dataPages: try sharedPages(1, firstReference: 70), port: Port(rawValue: 1),
        firstRingIndex: 0xFFFF_FFF0)
      let back = try BackRing(attaching: ring.pages, slotByteCount: NetControlRequest.byteCount)
      self.control = control
      self.back = back
    }

    mutating func take() throws -> [NetControlRequest] {
      _ = control.push()
      var requests: [NetControlRequest] = []
      var slot = SlotCopy()
      _ = try back.refresh()
      while back.take(into: &slot) { requests.append(NetControlRequest(slot)) }
      return requests
    }

    mutating func answer(_ response: NetControlResponse) {
      back.respond(response.encode(), byteCount: NetControlResponse.byteCount)
      _ = back.publish()
    }

    func violation() -> NetViolation? {
      do {
        _ = try control.nextResponse()
        return nil
      } catch {
        guard case .violation(let violation, queue: nil) = error else { return nil }
        return violation
      }
    }
  }

  @Test func answersComeInAnyOrder() throws {
    var bench = try Bench()
    for round in 0..<8 {
      var placed: [UInt16] = []
      while let id = try bench.control.place(.getHashFlags) { placed.append(id) }
      #expect(placed.count == 128 && Set(placed).count == 128, "round \(round)")
      for request in try bench.take().reversed() {
        bench.answer(NetControlResponse(id: request.id, type: request.type, status: .success))
      }
      var answered: [UInt16] = []
      while let response = try bench.control.nextResponse() { answered.append(response.id) }
      #expect(Set(answered) == Set(placed))
    }
  }

  @Test func answersThatBreakTheRulesDisableTheRing() throws {
    for (id, type, status) in [(UInt16(1), UInt16(1), UInt32(0)), (128, 1, 0), (0, 2, 0), (0, 1, 4)] {
      var bench = try Bench()
      #expect(try bench.control.place(.getHashFlags) == 0)
      _ = try bench.take()
      var response = NetControlResponse(id: id, type: NetControlType(rawValue: type), status: .success)
      response.status = status
      bench.answer(response)
      switch bench.violation() {
      case .controlIDNotInUse(response): #expect(id != 0)
      case .controlType(response, asked: .getHashFlags): #expect(type == 2)
      case .controlStatus(response): #expect(status == 4)
      case let other: Issue.record("\(String(describing: other))")
      }
      #expect(throws: NetFrontendError.self) { try bench.control.place(.getHashFlags) }
    }
    var bench = try Bench()
    #expect(try bench.control.place(.getHashFlags) == 0)
    _ = try bench.take()
    bench.control.ringPages.pages.setWord(0, at: RingGeometry.responseProducerOffset)
    guard case .ring = bench.violation() else {
      Issue.record("a producer ahead of the requests was taken")
      return
    }
  }
}
