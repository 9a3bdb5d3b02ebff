/// What xl and the disks' formats need beside the daemon.
struct ToolstackChecks {
  let tree: SystemTree
  /// Where commands are looked for, as PATH says it.
  var searchPath: String
  /// This program's own file.
  var ownProgram = "/proc/self/exe"

  /// The command that xl's script block-tap calls. libxl gives scripts the PATH that xl has.
  var tapControl: Check {
    let places = searchPath.split(separator: ":").map { "\($0)/tap-ctl" }
    guard let path = places.first(where: tree.isProgram) else {
      return .warning(
        "tap-ctl", "there is no tap-ctl in PATH, which xl's script block-tap calls",
        mend: "install Ringback's package (make deb) or `make install`, which link it to ringback")
    }
    guard isOurs(path) else {
      return .warning(
        "tap-ctl",
        "\(path) is not Ringback's: with backendtype=tap, xl would start blktap's tapdisks with it",
        mend: "uninstall blktap, or put Ringback's tap-ctl before it in PATH")
    }
    return .ok("tap-ctl", "\(path) is Ringback's")
  }

  private func isOurs(_ path: String) -> Bool {
    if tree.link(path)?.split(separator: "/").last == "ringback" { return true }
    return tree.identity(path).map { $0 == tree.identity(ownProgram) } ?? false
  }

  /// The script that libxl runs for backendtype=tap (since Xen 4.19), or Ringback's own.
  var hotplugScript: Check {
    let path = "/etc/xen/scripts/block-tap"
    let others = ["/etc/xen/scripts/block-ringback"].filter(tree.isProgram)
    let instead =
      others.first.map { "; script=\($0.split(separator: "/").last ?? "") works without it" } ?? ""
    guard tree.exists(path) else {
      return .warning(
        "block-tap", "there is no \(path), which xl runs for backendtype=tap\(instead)",
        mend: "install Xen's tools, 4.19 or later (Debian 13: apt install xen-utils-common)")
    }
    guard tree.isProgram(path) else {
      return .warning("block-tap", "\(path) cannot be run\(instead)", mend: "chmod 755 \(path)")
    }
    return .ok("block-tap", "\(path) is there for backendtype=tap")
  }

  /// Programs that serve formatted images.
  func helpers(_ programs: [(path: String, package: String)]) -> Check {
    let missing = programs.filter { !tree.isProgram($0.path) }
    guard missing.isEmpty else {
      let names = missing.map(\.path).joined(separator: " and ")
      return .warning(
        "formats",
        "\(names) \(missing.count == 1 ? "is" : "are") not there: qcow2, vhd, vhdx and vmdk cannot be served,"
          + " nor images lent to QEMU and pygrub; raw images and NBD can",
        mend: missing.map { "install \($0.package)" }.joined(separator: "; "))
    }
    return .ok("formats", "qcow2, vhd, vhdx and vmdk can be served beside raw images")
  }

  /// A directory that the daemon writes to and makes when it is missing.
  func directory(_ name: String, _ path: String, use: String, ifBad verdict: Check.Verdict) -> Check {
    func bad(_ finding: String, _ remedy: String) -> Check {
      Check(name: name, verdict: verdict, finding: "\(path), \(use), \(finding)", remedy: remedy)
    }
    var place = path
    while !tree.exists(place), place.contains("/"), place != "/" {
      let parent = place.split(separator: "/").dropLast().joined(separator: "/")
      place = "/\(parent)"
    }
    guard tree.isDirectory(place) else {
      return bad("cannot be: \(place) is no directory", "move \(place) out of the way")
    }
    guard tree.mayMakeFiles(in: place) else {
      return bad(
        "cannot be written by this user (\(tree.user))", "run as root, or give \(place) to the daemon's user")
    }
    return .ok(name, "\(path), \(use), \(place == path ? "can be written" : "will be made")")
  }
}
