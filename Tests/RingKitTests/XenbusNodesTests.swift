import RingKit
import Testing

@Suite struct XenbusNodesTests {
  static let guest = DomainID(rawValue: 5)
  static let address = DeviceAddress(kind: "vbd3", domain: guest, device: 51712)
  static let back = "/local/domain/0/backend/vbd3/5/51712"
  static let front = "/local/domain/5/device/vbd/51712"

  private func makeStore() -> MemoryStore {
    let store = MemoryStore()
    store["\(Self.back)/frontend"] = Self.front
    store["\(Self.back)/frontend-id"] = "5"
    store["\(Self.back)/online"] = "1"
    store["\(Self.back)/state"] = "1"
    store["\(Self.front)/state"] = "1"
    return store
  }

  private func makeNodes(_ store: MemoryStore) throws -> BackendNodes {
    try BackendNodes(Self.address, backend: DomainID(rawValue: 0), in: store)
  }

  @Test func pathsAreWhereTheProtocolHasThem() throws {
    let nodes = try makeNodes(makeStore())
    #expect(nodes.directory == Self.back)
    #expect(nodes.frontendDirectory == Self.front)
    #expect(nodes.ownState == Self.back + "/state")
    #expect(nodes.frontendState == Self.front + "/state")
    #expect(nodes.errorNode == "/local/domain/0/error/backend/vbd3/5/51712/error")
  }

  @Test(arguments: ["", "4", "6", "05 ", "-5", "5x", "32752", "65541", "4294967301"])
  func theFrontendsDomainIsThatOfTheDirectory(identifier: String) {
    let store = makeStore()
    store["\(Self.back)/frontend-id"] = identifier
    #expect(throws: StoreError.self) { try makeNodes(store) }
  }

  @Test(arguments: [
    "", "/", "device/vbd/51712", "/local/domain/4/device/vbd/51712", "/local/domain/55/device/vbd/51712",
    "/local/domain/5", "/local/domain/5/", "/local/domain/5/../0/backend", "/local/domain/5//device",
    "/local/domain/5/device/", "/local/domain/0/backend/vbd3/5/51712", "/local/domain/5/a b",
  ])
  func theFrontendsPathLiesInItsDomain(path: String) {
    let store = makeStore()
    store["\(Self.back)/frontend"] = path
    #expect(throws: StoreError.self) { try makeNodes(store) }
  }

  @Test func missingNodesAreNamed() {
    for node in ["frontend", "frontend-id"] {
      let store = makeStore()
      store["\(Self.back)/\(node)"] = nil
      #expect(throws: StoreError.missing(path: "\(Self.back)/\(node)")) { try makeNodes(store) }
    }
  }

  @Test func aDirectoryThatTheGuestCanWriteIsRefused() {
    func entry(_ domain: UInt16, read: Bool = false, write: Bool = false) -> StorePermission {
      StorePermission(domain: DomainID(rawValue: domain), canRead: read, canWrite: write)
    }
    let cases: [([StorePermission], Bool)] = [
      ([entry(0)], true), ([entry(0), entry(5, read: true)], true), ([entry(0, read: true)], true),
      ([entry(0), entry(6, write: true)], true), ([entry(0, write: true), entry(5, read: true)], true),
      ([entry(5)], false), ([entry(5), entry(0, write: true)], false), ([entry(0, write: true)], false),
      ([entry(0), entry(5, write: true)], false), ([entry(0), entry(5, read: true, write: true)], false),
    ]
    for (permissions, isSound) in cases {
      let store = makeStore()
      store.owners[Self.back] = permissions
      #expect(((try? makeNodes(store)) != nil) == isSound, "\(permissions)")
    }
  }

  @Test func observesWhatIsThere() throws {
    let store = makeStore()
    let nodes = try makeNodes(store)
    func observe() throws -> BackendObservation { try nodes.observe(in: store, isHotplugReady: true) }
    #expect(
      try observe()
        == BackendObservation(
          own: .initialising, frontend: .initialising, isOnline: true, isHotplugReady: true))
    store["\(Self.front)/state"] = "4"
    store["\(Self.back)/state"] = "5"
    store["\(Self.back)/online"] = nil
    #expect(
      try observe()
        == BackendObservation(own: .closing, frontend: .connected, isOnline: false, isHotplugReady: true))
    store["\(Self.front)/state"] = nil
    store["\(Self.back)/state"] = nil
    #expect(
      try observe() == BackendObservation(own: nil, frontend: nil, isOnline: false, isHotplugReady: true))
    for nonsense in ["", "9", "99", "-1", "abc", "4\n", String(repeating: "4", count: 4096)] {
      store["\(Self.front)/state"] = nonsense
      store["\(Self.back)/state"] = nonsense
      store["\(Self.back)/online"] = nonsense
      #expect(
        try observe()
          == BackendObservation(own: .unknown, frontend: .unknown, isOnline: false, isHotplugReady: true))
    }
  }

  /// A toolstack's removal is seen as a whole, or not yet.
  @Test func aRemovalIsNotSeenByHalves() throws {
    for path in ["\(Self.back)/state", "\(Self.back)/online", "\(Self.front)/state"] {
      let store = makeStore()
      store["\(Self.back)/online"] = "1"
      let nodes = try makeNodes(store)
      store.afterReading = { store, read in
        guard read == path else { return }
        store.afterReading = nil
        store["\(Self.back)/state"] = "5"
        store["\(Self.back)/online"] = "0"
        store["\(Self.front)/state"] = nil
      }
      #expect(
        try nodes.observe(in: store, isHotplugReady: true)
          == BackendObservation(own: .closing, frontend: nil, isOnline: false, isHotplugReady: true),
        "\(path)")
    }
  }

  @Test func hotplugIsWhatTheScriptSays() throws {
    let store = makeStore()
    let nodes = try makeNodes(store)
    #expect(try !nodes.isHotplugConnected(in: store))
    store["\(Self.back)/hotplug-status"] = "error"
    #expect(try !nodes.isHotplugConnected(in: store))
    store["\(Self.back)/hotplug-status"] = "connected"
    #expect(try nodes.isHotplugConnected(in: store))
  }

  @Test func aStateIsWrittenOnlyOverTheOneThatWasRead() throws {
    let store = makeStore()
    let nodes = try makeNodes(store)
    #expect(try nodes.switchState(from: .initialising, to: .closed, in: store))
    #expect(store["\(Self.back)/state"] == "6")
    #expect(try !nodes.switchState(from: .initialising, to: .connected, in: store))
    #expect(store["\(Self.back)/state"] == "6")
    // The toolstack's Closing comes between our read and our commit.
    store["\(Self.back)/state"] = "2"
    var conflicts = 0
    store.interfere = { store in
      conflicts += 1
      store["\(Self.back)/state"] = "5"
      return conflicts == 1
    }
    #expect(try !nodes.switchState(from: .initWait, to: .connected, in: store))
    #expect(store["\(Self.back)/state"] == "5")
    #expect(conflicts == 2)
  }

  @Test func aDirectoryThatIsGoneIsNotMadeAgain() throws {
    let store = makeStore()
    let nodes = try makeNodes(store)
    try store.remove(Self.back)
    #expect(try !nodes.switchState(from: .connected, to: .closed, in: store))
    #expect(
      try !nodes.publishFeatures(from: .initialising, thenState: .initWait, in: store) {
        transaction, directory throws(StoreError) in try transaction.write("\(directory)/feature", "1")
      })
    #expect(try !store.exists(Self.back))
  }

  @Test func featuresAreWrittenBeforeTheState() throws {
    let store = makeStore()
    let nodes = try makeNodes(store)
    #expect(
      try nodes.publishFeatures(from: .initialising, thenState: .initWait, in: store) {
        transaction, directory throws(StoreError) in
        try transaction.write("\(directory)/max-ring-page-order", "4")
      })
    #expect(store.writes == ["\(Self.back)/max-ring-page-order=4", "\(Self.back)/state=2"])
  }

  /// Errors of devices that are there stay, whoever told them; a driver domain's `error` is not its own.
  @Test func onlyErrorsOfDevicesThatAreGoneAreTakenBack() throws {
    let store = makeStore()
    let nodes = try makeNodes(store)
    let errors = String(nodes.errorNode.prefix { $0 != "v" })
    for name in ["9/51712", "9/51728", "5/99", "nonsense/1", "5/nonsense"] {
      store["\(errors)\(nodes.address.kind)/\(name)/error"] = "told"
    }
    store["\(errors)vif/9/0/error"] = "another's"
    try nodes.reportError("here", in: store)
    let backend = nodes.backend
    try BackendNodes.clearStaleErrors(of: nodes.address.kind, backend: backend, in: store)
    let kind = nodes.address.kind
    let left = store.nodes.keys.filter { $0.contains("/error/") }.map { $0.dropFirst(errors.count) }.sorted()
    #expect(
      left
        == [
          "\(kind)/\(nodes.address.domain)/\(nodes.address.device)/error", "\(kind)/5/nonsense/error",
          "\(kind)/nonsense/1/error", "vif/9/0/error",
        ].map { $0[...] }.sorted())
  }

  @Test func errorsAreToldEscapedAndCutAndTakenBack() throws {
    let store = makeStore()
    let nodes = try makeNodes(store)
    try nodes.reportError("ring-ref is \"\u{1B}\"" + String(repeating: "x", count: 9999), in: store)
    let text = try #require(store[nodes.errorNode])
    #expect(text.utf8.count < 300)
    #expect(text.utf8.allSatisfy { $0 >= 0x20 && $0 < 0x7F })
    try nodes.clearError(in: store)
    #expect(try !store.exists(nodes.errorNode))
  }
}
