import Blkback
import Testing

/// What `params` names.
@Suite struct StoreTableTests {
  @Test(
    "libxl's own prefix may stand before any image",
    arguments: [
      ("/srv/x", "raw", "/srv/x"), ("aio:/srv/x", "raw", "/srv/x"), ("aio:/srv/a:b", "raw", "/srv/a:b"),
      ("qcow2:/srv/x", "qcow2", "/srv/x"), ("aio:qcow2:/srv/x", "qcow2", "/srv/x"),
      ("aio:nbd:unix:/run/s", "nbd", "unix:/run/s"), ("aio:ram:64M", "ram", "64M"),
    ])
  func images(parameters: String, prefix: String, location: String) throws {
    let (kind, found) = try StoreTable.parse(parameters)
    #expect(kind.prefixes.contains(prefix))
    #expect(found == location)
  }

  @Test(
    "What names no image is refused",
    arguments: [
      "aio:x", "aio:aio:/srv/x", "aio:cow:/srv/x", "aio:qcow2:x", "qcow2:aio:/srv/x", "vhd:qcow2:/srv/x",
      "aio:",
    ])
  func nonsense(parameters: String) {
    #expect(throws: VbdError.self) { try StoreTable.parse(parameters) }
  }
}
