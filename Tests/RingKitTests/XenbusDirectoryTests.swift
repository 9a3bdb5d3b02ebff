import RingKit
import Testing

@Suite struct XenbusDirectoryTests {
  private func address(_ kind: String, _ domain: UInt16, _ device: UInt32) -> DeviceAddress {
    DeviceAddress(kind: kind, domain: DomainID(rawValue: domain), device: device)
  }

  private func makeDirectory() -> BackendDirectory {
    BackendDirectory(backend: DomainID(rawValue: 0), kinds: ["vbd3", "vif"])
  }

  private func drain(_ directory: inout BackendDirectory) -> [BackendDirectory.Work] {
    var work: [BackendDirectory.Work] = []
    while let next = directory.next() { work.append(next) }
    return work
  }

  @Test func addressesAreCanonicalNumbers() {
    #expect(DeviceAddress(kind: "vbd", domain: "0", device: "0") == address("vbd", 0, 0))
    #expect(DeviceAddress(kind: "vbd", domain: "32751", device: "4294967295") == address("vbd", 0x7FEF, .max))
    for (domain, device) in [
      ("", "0"), ("0", ""), ("32752", "0"), ("65536", "0"), ("05", "0"), ("5", "00"), ("-1", "0"),
      ("5", "-1"),
      ("5", "4294967296"), ("0x5", "0"), ("5 ", "0"), ("5", "51712 "), ("self", "0"), ("5", "xvda"),
    ] {
      #expect(DeviceAddress(kind: "vbd", domain: domain, device: device) == nil, "\(domain)/\(device)")
    }
    #expect("\(address("vbd3", 5, 51712))" == "vbd3/5/51712")
    #expect(address("vbd3", 5, 9) < address("vbd3", 10, 1))
    #expect(address("vbd3", 5, 9) < address("vbd3", 5, 10))
  }

  @Test func listingsAreComparedWithWhatWasKnown() {
    var directory = makeDirectory()
    var changes = directory.update("vbd3", with: [("5", ["51728", "51712"]), ("10", ["51712"])])
    #expect(
      changes.appeared
        == [address("vbd3", 5, 51712), address("vbd3", 5, 51728), address("vbd3", 10, 51712)])
    #expect(changes.vanished.isEmpty)
    changes = directory.update("vif", with: [("5", ["0"])])
    #expect(changes.appeared == [address("vif", 5, 0)])
    changes = directory.update("vbd3", with: [("5", ["51728"]), ("10", []), ("11", ["1"])])
    #expect(changes.appeared == [address("vbd3", 11, 1)])
    #expect(changes.vanished == [address("vbd3", 5, 51712), address("vbd3", 10, 51712)])
    changes = directory.update("vbd3", with: [("5", ["51728"]), ("11", ["1"])])
    #expect(changes == BackendDirectory.Changes())
    changes = directory.update("vbd3", with: [])
    #expect(changes.vanished == [address("vbd3", 5, 51728), address("vbd3", 11, 1)])
    #expect(directory.devices == [address("vif", 5, 0)])
  }

  @Test func namesWithoutSenseAreReportedOnce() {
    var directory = makeDirectory()
    let listing = [("5", ["51712", "junk"]), ("05", ["51712"]), ("x", [])]
    var changes = directory.update("vbd3", with: listing)
    #expect(changes.appeared == [address("vbd3", 5, 51712)])
    #expect(changes.ignored == ["vbd3/05", "vbd3/5/junk", "vbd3/x"])
    changes = directory.update("vbd3", with: listing)
    #expect(changes == BackendDirectory.Changes())
    let flood = (0..<10_000).map { "junk\($0)" }
    changes = directory.update("vbd3", with: [("5", flood)])
    #expect(changes.ignored.count <= 256)
    #expect(directory.update("vbd3", with: [("5", flood)]).ignored.isEmpty)
  }

  @Test func eventsBecomeTheWorkTheyMean() {
    let base = "/local/domain/0/backend/vbd3"
    let disk = address("vbd3", 5, 51712)
    let cases: [(String, String, [BackendDirectory.Work])] = [
      (base, "kind/vbd3", [.scan(kind: "vbd3")]),
      ("\(base)/5", "kind/vbd3", [.scan(kind: "vbd3")]),
      ("\(base)/5/51712", "kind/vbd3", [.scan(kind: "vbd3"), .read(disk)]),
      ("\(base)/5/51712/state", "kind/vbd3", [.read(disk)]),
      ("\(base)/5/51712/a/b/c", "kind/vbd3", [.read(disk)]),
      ("\(base)/5/51728/state", "kind/vbd3", [.scan(kind: "vbd3")]),
      ("\(base)/05/51712/state", "kind/vbd3", [.scan(kind: "vbd3")]),
      ("\(base)/junk/x/y", "kind/vbd3", [.scan(kind: "vbd3")]),
      ("\(base)5/51712", "kind/vbd3", []),
      ("/local/domain/0/backend/vif/5/0", "kind/vbd3", []),
      ("\(base)/5/51712/state", "kind/vbd", []),
      ("\(base)/5/51712/state", "kind", []),
      ("\(base)/5/51712/state", "", []),
      ("/local/domain/5/device/vbd/51712/state", "frontend/vbd3/5/51712", [.read(disk)]),
      // What the path says is the guest's affair; the token is ours.
      ("/local/domain/5/device/vbd/51712/state/deep/below", "frontend/vbd3/5/51712", [.read(disk)]),
      ("/local/domain/5/device/vbd/51712/state", "frontend/vbd3/5/51728", []),
      ("/local/domain/5/device/vbd/51712/state", "frontend/vbd3/5/51712/x", []),
      ("/local/domain/5/device/vbd/51712/state", "frontend/vbd3/5/x", []),
    ]
    for (path, token, work) in cases {
      var directory = makeDirectory()
      _ = directory.update("vbd3", with: [("5", ["51712"])])
      directory.note(WatchEvent(path: path, token: token))
      #expect(drain(&directory) == work, "\(path) \(token)")
    }
  }

  @Test func aFloodOfEventsLeavesOneOfEachKind() {
    var directory = makeDirectory()
    _ = directory.update("vbd3", with: [("5", ["1", "2"])])
    let (first, second) = (address("vbd3", 5, 1), address("vbd3", 5, 2))
    for index in 0..<100_000 {
      let device = index % 2 == 0 ? second : first
      directory.note(WatchEvent(path: "/x/\(index)", token: directory.token(ofFrontendOf: device)))
    }
    for index in 0..<1000 {
      let path = "\(directory.path(of: "vbd3"))/\(index)/9/state"
      directory.note(WatchEvent(path: path, token: directory.token(of: "vbd3")))
    }
    #expect(drain(&directory) == [.read(second), .read(first), .scan(kind: "vbd3")])
    // Whoever is served goes to the end: a flood does not keep others waiting.
    directory.note(first)
    directory.note(second)
    #expect(directory.next() == .read(first))
    directory.note(first)
    #expect(drain(&directory) == [.read(second), .read(first)])
  }

  @Test func whatVanishedIsNotReadAgain() {
    var directory = makeDirectory()
    _ = directory.update("vbd3", with: [("5", ["1", "2"])])
    directory.note(address("vbd3", 5, 1))
    directory.note(address("vbd3", 5, 2))
    _ = directory.update("vbd3", with: [("5", ["2"])])
    directory.note(address("vbd3", 5, 1))
    #expect(drain(&directory) == [.read(address("vbd3", 5, 2))])
    _ = directory.update("vbd3", with: [("5", ["1", "2"])])
    directory.note(address("vbd3", 5, 1))
    #expect(drain(&directory) == [.read(address("vbd3", 5, 1))])
  }

  @Test func scansTheStore() throws {
    let store = MemoryStore()
    var directory = makeDirectory()
    #expect(try directory.scan("vbd3", in: store) == BackendDirectory.Changes())
    store["/local/domain/0/backend/vbd3/5/51712/state"] = "1"
    store["/local/domain/0/backend/vbd3/6/51712/state"] = "1"
    store["/local/domain/0/backend/vbd3/junk/51712/state"] = "1"
    store["/local/domain/0/backend/vbd/7/51712/state"] = "1"
    let changes = try directory.scan("vbd3", in: store)
    #expect(changes.appeared == [address("vbd3", 5, 51712), address("vbd3", 6, 51712)])
    #expect(changes.ignored == ["vbd3/junk"])
    try store.remove("/local/domain/0/backend/vbd3")
    #expect(try directory.scan("vbd3", in: store).vanished.count == 2)
  }
}
