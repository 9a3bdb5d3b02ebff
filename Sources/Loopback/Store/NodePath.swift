/// A checked, absolute path of the store, or one of the specials that begin with `@`.
///
/// Rules: `docs/misc/xenstore.txt` of xen.git; limits `XENSTORE_ABS_PATH_MAX` and `XENSTORE_REL_PATH_MAX`
/// of `xs_wire.h`.
struct NodePath: Hashable, Sendable, CustomStringConvertible {
  static let absoluteBytesMax = 3072
  static let relativeBytesMax = 2048
  static let root = NodePath(components: [])

  /// Names from the root down; empty for the root. A special's first component keeps its `@`.
  let components: [String]

  /// Paths that this program itself makes up, whose components are known to be valid.
  init(components: [String]) {
    self.components = components
  }

  /// Reads a path as sent by `caller`; a relative one is taken below `/local/domain/<domid>`.
  init(_ bytes: ArraySlice<UInt8>, caller: StoreCaller, special: Bool) throws(StoreFailure) {
    guard let first = bytes.first, bytes.allSatisfy(Self.isAllowed) else { throw .invalid }
    let isSpecial = first == UInt8(ascii: "@")
    guard special || !isSpecial else { throw .invalid }
    let isRelative = !isSpecial && first != UInt8(ascii: "/")
    guard bytes.count <= (isRelative ? Self.relativeBytesMax : Self.absoluteBytesMax) else { throw .invalid }

    var names = isRelative ? Self.home(of: caller.domain).components : []
    if bytes.count > 1 || isRelative || isSpecial {
      let body = isRelative || isSpecial ? bytes : bytes.dropFirst()
      for name in body.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false) {
        guard !name.isEmpty else { throw .invalid }
        names.append(String(decoding: name, as: UTF8.self))
      }
    }
    components = names
    if let quota = caller.quota, byteCountForQuota > quota.pathBytes { throw .invalid }
  }

  /// `/local/domain/<domid>`, the base of the domain's relative paths.
  static func home(of domain: UInt16) -> NodePath {
    NodePath(components: ["local", "domain", String(domain)])
  }

  var isRoot: Bool { components.isEmpty }
  var isSpecial: Bool { components.first?.utf8.first == UInt8(ascii: "@") }

  /// The path one level up. The root, and a special without `/`, have the root as parent.
  var parent: NodePath { NodePath(components: Array(components.dropLast())) }

  func appending(_ name: String) -> NodePath { NodePath(components: components + [name]) }

  /// True for the path itself and everything below `ancestor`. Specials are not below the root here:
  /// xenstored compares text, and `@` names do not begin with `/`.
  func isAtOrBelow(_ ancestor: NodePath) -> Bool {
    if ancestor.isRoot { return !isSpecial }
    return components.starts(with: ancestor.components)
  }

  var description: String {
    let joined = components.joined(separator: "/")
    return isSpecial ? joined : "/" + joined
  }

  var byteCount: Int {
    max(1, components.reduce(isSpecial ? -1 : 0) { $0 + 1 + $1.utf8.count })
  }

  private var byteCountForQuota: Int {
    guard components.count > 3, components[0] == "local", components[1] == "domain",
      UInt16(components[2]) != nil
    else { return byteCount }
    return components.dropFirst(3).reduce(-1) { $0 + 1 + $1.utf8.count }
  }

  private static func isAllowed(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
      UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "/"), UInt8(ascii: "_"),
      UInt8(ascii: "@"):
      true
    default: false
    }
  }
}
