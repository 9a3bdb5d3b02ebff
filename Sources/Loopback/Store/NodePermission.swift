/// Who asks: the domain, the one it stands in for (`XS_SET_TARGET`), and its limits.
struct StoreCaller: Sendable {
  static let privileged = StoreCaller(domain: 0, target: nil, quota: nil)

  let domain: UInt16
  /// A domain whose rights the caller has as well.
  let target: UInt16?
  /// Nil for domain 0, which no quota binds.
  let quota: StoreQuota?

  var isPrivileged: Bool { domain == 0 }

  func stands(for owner: UInt16) -> Bool { owner == domain || owner == target }
}

/// What a permission entry grants (`xenstore.h`, `enum xs_perm_type`).
struct NodeAccess: OptionSet, Hashable, Sendable {
  let rawValue: UInt8
  static let read = NodeAccess(rawValue: 1)
  static let write = NodeAccess(rawValue: 2)
  /// Changing the permissions; only owners and domain 0 have it, no entry grants it.
  static let owner = NodeAccess(rawValue: 4)
  static let all: NodeAccess = [.read, .write, .owner]
}

/// One entry of a node's permission list: `n7`, `r0`, `w3`, `b12`.
struct NodePermission: Hashable, Sendable, CustomStringConvertible {
  var domain: UInt16
  var access: NodeAccess

  init(domain: UInt16, access: NodeAccess) {
    self.domain = domain
    self.access = access
  }

  /// Reads the text form: a letter and a decimal domain id.
  init(_ text: ArraySlice<UInt8>) throws(StoreFailure) {
    switch text.first {
    case UInt8(ascii: "n"): access = []
    case UInt8(ascii: "r"): access = .read
    case UInt8(ascii: "w"): access = .write
    case UInt8(ascii: "b"): access = [.read, .write]
    default: throw .invalid
    }
    domain = try parseDomain(text.dropFirst())
  }

  var description: String {
    let letter =
      switch access.intersection([.read, .write]) {
      case .read: "r"
      case .write: "w"
      case []: "n"
      default: "b"
      }
    return letter + String(domain)
  }
}

/// Reads a decimal domain id, 0...65535.
func parseDomain(_ text: ArraySlice<UInt8>) throws(StoreFailure) -> UInt16 {
  guard text.allSatisfy({ $0 >= UInt8(ascii: "0") && $0 <= UInt8(ascii: "9") }),
    let domain = UInt16(String(decoding: text, as: UTF8.self))
  else { throw .invalid }
  return domain
}

extension [NodePermission] {
  /// What `caller` may do. The first entry names the owner, and its access holds for everyone not listed.
  func access(for caller: StoreCaller) -> NodeAccess {
    guard let first else { return caller.isPrivileged ? .all : [] }
    if caller.isPrivileged || caller.stands(for: first.domain) { return .all }
    return dropFirst().first { caller.stands(for: $0.domain) }?.access ?? first.access
  }
}
