import Frontends
import Netback
import RingKit
import Testing

/// Every request of the control ring with every answer that it can have (netif.h, "Control messages"), by the
/// rings of a served interface.
@Suite(
  .serialized, .timeLimit(.minutes(10)),
  .disabled(if: netDeviceObstacle != nil, Comment(rawValue: netDeviceObstacle ?? "")))
struct NetDeviceRequestTests {
  /// What is asked and what answers it.
  private struct Step {
    var type: NetControlType
    var data: (UInt32, UInt32, UInt32)
    var status: NetControlStatus
    var answer: UInt32

    init(
      _ type: NetControlType, _ first: UInt32 = 0, _ second: UInt32 = 0, _ third: UInt32 = 0,
      _ status: NetControlStatus = .success, data: UInt32 = 0
    ) {
      self.type = type
      self.data = (first, second, third)
      self.status = status
      answer = data
    }
  }

  private func walk(_ frontend: NetFrontend, _ steps: [Step]) throws {
    for (number, step) in steps.enumerated() {
      let response = try frontend.ask(step.type, step.data.0, step.data.1, step.data.2)
      #expect(
        response.status == step.status.rawValue && response.data == step.answer,
        "step \(number): \(step) was answered with \(response)")
    }
  }

  @Test func itIsOfferedAndEveryHashRequestHasItsAnswers() throws {
    let world = try NetDeviceWorld()
    try world.addInterface()
    let frontend = try world.connected()
    #expect(frontend.features.controlRing)
    #expect(try world.toolstack.read("\(world.backendPath())/feature-ctrl-ring") == "1")
    let control = try #require(frontend.control)
    let page = control.dataReference.rawValue
    let fixed = try world.share(1, .readOnly)
    let reader = fixed.references[0].rawValue
    let foreign = try world.share(1, with: DomainID(rawValue: 5)).references[0].rawValue
    // Queues of a table, and a key: 0, 1, 0, 1, 2; there are two.
    let words: [UInt8] = [0, 1, 0, 1, 2].flatMap { [$0, 0, 0, 0] }
    control.dataPages.pages.setBytes(words, at: 0)
    fixed.pages.setBytes(words, at: 0)
    try walk(
      frontend,
      [
        // Before an algorithm is chosen.
        Step(.getHashFlags, 0, 0, 0, .notSupported), Step(.setHashFlags, 1, 0, 0, .invalidParameter),
        Step(.setHashAlgorithm, 2, 0, 0, .invalidParameter),
        Step(.setHashAlgorithm, .max, 0, 0, .invalidParameter), Step(.setHashAlgorithm, 0),
        Step(.getHashFlags, 0, 0, 0, .notSupported), Step(.setHashAlgorithm, 1),
        Step(.getHashFlags, data: 15),
        Step(.setHashFlags, 16, 0, 0, .invalidParameter),
        Step(.setHashFlags, 0x8000_000F, 0, 0, .invalidParameter), Step(.setHashFlags, 0),
        Step(.setHashFlags, 15), Step(.getHashFlags, data: 15),

        Step(.setHashKey, page, 41, 0, .bufferOverflow), Step(.setHashKey, page, .max, 0, .bufferOverflow),
        Step(.setHashKey, .max, 8, 0, .invalidParameter), Step(.setHashKey, foreign, 8, 0, .invalidParameter),
        Step(.setHashKey, page, 40), Step(.setHashKey, reader, 1), Step(.setHashKey, .max, 0),

        Step(.setHashMapping, page, 1, 0, .invalidParameter), Step(.getHashMappingSize, data: 128),
        Step(.setHashMappingSize, 129, 0, 0, .invalidParameter),
        Step(.setHashMappingSize, .max, 0, 0, .invalidParameter), Step(.setHashMappingSize, 128),
        Step(.setHashMappingSize, 0), Step(.setHashMappingSize, 5),

        Step(.setHashMapping, page, 6, 0, .invalidParameter),
        Step(.setHashMapping, page, 5, 1, .invalidParameter),
        Step(.setHashMapping, page, 129, 0, .bufferOverflow),
        Step(.setHashMapping, page, 1, 129, .bufferOverflow),
        Step(.setHashMapping, page, 1, .max, .bufferOverflow),
        Step(.setHashMapping, page, .max, 2, .bufferOverflow),
        Step(.setHashMapping, page, 0x4000_0000, 0, .bufferOverflow),
        // The fifth entry names a queue that there is not.
        Step(.setHashMapping, page, 5, 0, .invalidParameter),
        Step(.setHashMapping, .max, 1, 0, .invalidParameter),
        Step(.setHashMapping, foreign, 1, 0, .invalidParameter), Step(.setHashMapping, page, 4, 1),
        Step(.setHashMapping, reader, 4), Step(.setHashMapping, .max, 0, 5),

        Step(NetControlType(rawValue: 0), 0, 0, 0, .notSupported),
        Step(NetControlType(rawValue: 11), page, 1, 1, .notSupported),
        Step(NetControlType(rawValue: .max), .max, .max, .max, .notSupported),
        Step(.setHashAlgorithm, 0), Step(.getHashFlags, 0, 0, 0, .notSupported),
      ])
    try world.traffic(frontend, count: 3)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    #expect(world.mappedPageCount == 0)
    try world.daemon.stop()
  }

  @Test func everyStagingRequestHasItsAnswers() throws {
    let world = try NetDeviceWorld()
    try world.addInterface()
    let frontend = try world.connected()
    let control = try #require(frontend.control)
    let page = control.dataReference.rawValue
    let fixed = try world.share(1, .readOnly)
    let pages = try world.share(4)
    let foreign = try world.share(1, with: DomainID(rawValue: 5)).references[0].rawValue
    func list(_ entries: [UInt64], on target: SharedPages? = nil) {
      (target ?? control.dataPages).pages.setWords(entries, at: 0)
    }
    let entries = pages.references.map { UInt64($0.rawValue) }
    list(entries)
    list(entries, on: fixed)
    var steps: [Step] = [
      Step(.getGrantMappingSize, 0, data: 512), Step(.getGrantMappingSize, 1, data: 512),
      Step(.getGrantMappingSize, 2, 0, 0, .invalidParameter),
      Step(.getGrantMappingSize, .max, 0, 0, .invalidParameter),
    ]
    for type in [NetControlType.addGrantMapping, .deleteGrantMapping] {
      steps += [
        Step(type, 2, page, 4, .invalidParameter), Step(type, .max, page, 4, .invalidParameter),
        Step(type, 0, page, 513, .invalidParameter), Step(type, 0, page, 0x2000_0001, .invalidParameter),
        Step(type, 0, page, .max, .invalidParameter), Step(type, 0, .max, 4, .invalidParameter),
        Step(type, 0, foreign, 4, .invalidParameter),
        // The list has to be granted for writing.
        Step(type, 0, fixed.references[0].rawValue, 4, .invalidParameter), Step(type, 0, .max, 0),
      ]
    }
    try walk(frontend, steps)
    #expect(world.mappedPageCount == 5)
    try walk(frontend, [Step(.addGrantMapping, 0, page, 4)])
    #expect(world.mappedPageCount == 9)
    try walk(frontend, [Step(.deleteGrantMapping, 1, page, 4)])
    #expect(control.dataPages.pages.copyWords(at: 0, count: 4) == entries.map { $0 | 2 << 48 })
    list(entries)
    try walk(frontend, [Step(.deleteGrantMapping, 0, page, 3, data: 3)])
    #expect(control.dataPages.pages.copyWords(at: 0, count: 4) == entries)
    #expect(world.mappedPageCount == 6)
    try walk(frontend, [Step(.deleteGrantMapping, 0, page, 4, data: 1)])
    #expect(
      control.dataPages.pages.copyWords(at: 0, count: 4) == entries[0..<3].map { $0 | 2 << 48 } + [entries[3]]
    )
    // A flag that does not exist.
    list([entries[0] | 2 << 32])
    try walk(frontend, [Step(.addGrantMapping, 0, page, 1, .invalidParameter)])
    #expect(world.mappedPageCount == 5)
    try world.traffic(frontend, count: 3)
    try world.daemon.stop()
  }

  /// A ring full of requests at once, over and over: each is answered once, under its own name and type.
  @Test func trap5_everyRequestIsAnsweredOnce() throws {
    let world = try NetDeviceWorld()
    try world.addInterface()
    let frontend = try world.connected()
    let control = try #require(frontend.control)
    let pages = try world.share(64)
    control.dataPages.pages.setWords(pages.references.map { UInt64($0.rawValue) }, at: 0)
    let list = control.dataReference.rawValue
    var (placed, answered) = (0, 0)
    while answered < 1500 {
      while placed < 1500 {
        let id: UInt16? =
          switch placed % 6 {
          case 0: try control.place(.addGrantMapping, 0, list, 64)
          case 1: try control.place(.getHashMappingSize)
          case 2: try control.place(.setHashMappingSize, UInt32(placed % 200))
          case 3: try control.place(.deleteGrantMapping, 0, list, 64)
          case 4: try control.place(NetControlType(rawValue: UInt16(placed)), 1, 2, 3)
          default: try control.place(.getGrantMappingSize, UInt32(placed % 4))
          }
        guard id != nil else { break }
        placed += 1
      }
      try frontend.pushControl()
      // A second answer, or one to another type, is thrown from here.
      while try control.nextResponse() != nil { answered += 1 }
      if answered < placed { try frontend.waitForControl() }
    }
    #expect(placed == 1500 && answered == 1500 && control.outstanding == 0)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    #expect(world.mappedPageCount == 0)
    try world.daemon.stop()
  }

  /// A frontend that wants no control ring, and ones whose control ring cannot be had: the interface closes with
  /// the reason, nothing stays mapped, and the next attempt may succeed.
  @Test func trap39_aControlRingThatCannotBeHadIsRefusedWithTheReason() throws {
    let world = try NetDeviceWorld()
    try world.addInterface()
    var plain = NetFrontendOptions()
    plain.queueCount = 2
    let frontend = try world.connected(0, plain)
    #expect(frontend.control == nil)
    try world.traffic(frontend, count: 3)
    try frontend.close(timeoutMilliseconds: worldMilliseconds)
    let foreign = try world.share(1, with: DomainID(rawValue: 5)).references[0].rawValue
    let fixed = try world.share(1, .readOnly).references[0].rawValue
    for (key, value, reason) in [
      ("event-channel-ctrl", nil, "event-channel-ctrl"), ("event-channel-ctrl", "0", "event-channel-ctrl"),
      ("event-channel-ctrl", "9999", "9999"), ("ctrl-ring-ref", "-1", "ctrl-ring-ref"),
      ("ctrl-ring-ref", "4294967296", "ctrl-ring-ref"), ("ctrl-ring-ref", "4294967295", "4294967295"),
      ("ctrl-ring-ref", "\(foreign)", "\(foreign)"), ("ctrl-ring-ref", "\(fixed)", "\(fixed)"),
      // With the control ring the queues are of one group, which has to fall apart too.
      ("queue-1/rx-ring-ref", "4294967295", "4294967295"), ("queue-1/event-channel-rx", "9999", "9999"),
    ] as [(String, String?, String)] {
      frontend.options = .control()
      frontend.options.keys = [key: value]
      #expect(throws: NetFrontendError.self) { try frontend.connect(timeoutMilliseconds: worldMilliseconds) }
      let told = try world.errorNode()
      #expect(told?.contains(reason) == true, "\(key)=\(value ?? "nothing"): \(told ?? "nothing is told")")
      try frontend.followClose(timeoutMilliseconds: worldMilliseconds)
      #expect(world.mappedPageCount == 0, "\(key)=\(value ?? "nothing")")
    }
    frontend.options = .control()
    try frontend.connect(timeoutMilliseconds: worldMilliseconds)
    try world.awaitPath(to: frontend)
    try frontend.setHashAlgorithm(1)
    try world.traffic(frontend, count: 3)
    try world.daemon.stop()
  }
}
