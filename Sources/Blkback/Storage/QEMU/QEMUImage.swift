import RingKit

/// A disk image in a format that QEMU's block layer knows.
struct QEMUImage: Sendable {
  /// The image's formats: the prefix that names it here, and QEMU's block driver for it.
  static let drivers = [
    (prefix: "qcow2", driver: "qcow2"), (prefix: "vhd", driver: "vpc"), (prefix: "vhdx", driver: "vhdx"),
    (prefix: "vmdk", driver: "vmdk"),
  ]

  /// QEMU's name of the format. It comes from the prefix alone: an image that is looked at to find out would
  /// be whatever the guest wrote there.
  let driver: String
  let path: String
  let isReadOnly: Bool
  let facts: ImageFacts

  /// The program, and the package that has it.
  static let program = "/usr/bin/qemu-storage-daemon"
  static let package = "qemu-utils (Debian 13) or qemu-system-common (Debian 12)"
  /// What takes privileges away from it.
  static let wrapper = "/usr/bin/setpriv"

  /// Says that an image is to be served by QEMU, and checks what can be checked before that.
  init(driver: String, name: String, request: StoreRequest) throws(VbdError) {
    for (program, package) in [(Self.program, Self.package), (Self.wrapper, "util-linux")] {
      guard ImageFacts.isProgram(program) else {
        throw VbdError("\(name): needs \(program), which is not there; install the package \(package)")
      }
    }
    do throws(StorageError) {
      var facts = try ImageFacts(path: request.location)
      if request.direct == .always && !facts.takesDirect {
        throw StorageError(path: request.location, reason: .directRefused)
      }
      if request.direct == .never { facts.takesDirect = false }
      self.facts = facts
    } catch {
      throw VbdError(error)
    }
    (self.driver, path, isReadOnly) = (driver, request.location, request.isReadOnly)
    try checkChain()
  }

  /// Images that are followed from one to the one it is based on.
  private static let chainLimit = 64

  /// Refuses an image based on another whose format is not recorded: QEMU would look at that one to find out,
  /// and a guest that once wrote it as a raw disk would decide what is read (XSA-48's class).
  func checkChain() throws(VbdError) {
    guard driver == "qcow2" else { return }
    var path = path
    for _ in 0..<Self.chainLimit {
      // What is no qcow2 image is QEMU's to refuse.
      guard let backing = try Self.header(of: path)?.backing else { return }
      guard let format = backing.format else {
        throw VbdError(
          "\(path): the format of the image it is based on is not recorded, and is not guessed from what a guest"
            + " may have written; record it (`qemu-img rebase -u -F FORMAT -b BASE \(path)`)")
      }
      // Names like nbd://... are no files here, and other formats say nothing that can be followed.
      guard format == "qcow2", !backing.file.contains(":") else { return }
      path = backing.file.hasPrefix("/") ? backing.file : Self.directory(of: path) + backing.file
    }
    throw VbdError("\(path): more than \(Self.chainLimit) images are based on one another")
  }

  private static func header(of path: String) throws(VbdError) -> QCOW2Header? {
    do throws(StorageError) {
      return QCOW2Header(try ImageFacts.beginning(of: path, byteCount: QCOW2Header.byteCount))
    } catch {
      throw VbdError(error)
    }
  }

  private static func directory(of path: String) -> String {
    String(path[...(path.lastIndex(of: "/") ?? path.startIndex)])
  }

  /// QEMU's options are lists with commas; a comma in a value is doubled (qemu-storage-daemon(1)).
  private static func quoted(_ text: String) -> String {
    text.split(separator: ",", omittingEmptySubsequences: false).joined(separator: ",,")
  }

  /// Arguments for the program, which serves on its descriptor 3.
  var arguments: [String] {
    let access = isReadOnly ? "read-only=on" : "read-only=off"
    let direct = facts.takesDirect ? "on" : "off"
    // Linux's own asynchronous I/O works only past the page cache.
    let engine = facts.takesDirect ? "native" : "threads"
    let protocolDriver = facts.isBlockDevice ? "host_device" : "file"
    // A format keeps other writers out by itself. A raw image's server would let in all who share it, such as
    // another such server; only this driver, made for tests, can be told otherwise. Its data pass untouched.
    let isGuarded = driver == "raw" && !isReadOnly
    let guardian = [
      "--blockdev",
      "driver=blkdebug,node-name=guard,image=file,\(access),auto-read-only=off,cache.direct=\(direct)"
        + ",discard=unmap,unshare-child-perms.0=write,unshare-child-perms.1=resize",
    ]
    return [
      "--blockdev",
      "driver=\(protocolDriver),node-name=file,filename=\(Self.quoted(path)),\(access),auto-read-only=off"
        + ",cache.direct=\(direct),aio=\(engine),discard=unmap,locking=on",
    ] + (isGuarded ? guardian : []) + [
      "--blockdev",
      "driver=\(driver),node-name=disk,file=\(isGuarded ? "guard" : "file"),\(access),auto-read-only=off"
        + ",cache.direct=\(direct),discard=unmap,detect-zeroes=off",
      "--nbd-server", "addr.type=fd,addr.str=3,max-connections=0",
      "--export", "type=nbd,id=disk,node-name=disk,name=,writable=\(isReadOnly ? "off" : "on")",
    ]
  }

  /// The whole command: as the image's owner, without capabilities and without a way to get any, and ended in
  /// order when this daemon is gone, however that came.
  func command(isPrivileged: Bool) -> [String] {
    var words = ["--no-new-privs", "--inh-caps=-all", "--pdeathsig=TERM"]
    if isPrivileged {
      words += [
        "--reuid=\(facts.owner)", "--regid=\(facts.group)", "--clear-groups", "--ambient-caps=-all",
        "--bounding-set=-all",
      ]
    }
    return words + ["--", Self.program] + arguments
  }
}

extension StoreKind {
  /// Images that QEMU's block layer reads and writes, one process for each disk.
  static let qemu = QEMUImage.drivers.map { (prefix, driver) in
    StoreKind(
      prefixes: [prefix], locationForm: "/PATH", check: StoreTable.checkPath, canZero: true
    ) { (request) throws(VbdError) in
      try QEMUServer.openStore(driver: driver, prefix: prefix, request: request)
    }
  }
}
