/// Where a network block device is: a URI as libnbd takes it (nbd_connect_uri(3)), or QEMU's older syntax.
public enum NBDAddress: Equatable, Sendable, CustomStringConvertible {
  /// "nbd://HOST[:PORT]/EXPORT", "nbds://...", "nbd+unix:///EXPORT?socket=PATH", "nbds+unix://...". TLS takes
  /// its certificates from "tls-certificates=DIRECTORY" or "tls-psk-file=FILE" in the query.
  case uri(String)
  /// A unix socket and the name of an export there.
  case unix(path: String, export: String)
  /// A host, a port and the name of an export there.
  case tcp(host: String, port: String, export: String)

  /// The schemes that a URI may have.
  public static let schemes = ["nbd", "nbds", "nbd+unix", "nbds+unix"]

  /// Reads "unix:/PATH[:exportname=NAME]", "HOST:PORT[:exportname=NAME]", or a URI with or without its
  /// "nbd:". Throws what is wrong with the text; nothing is connected or looked up.
  public init(_ text: String) throws(NBDError) {
    if text.hasPrefix("//") {
      self = .uri("nbd:\(text)")
      return
    }
    if Self.schemes.contains(where: { text.hasPrefix("\($0)://") }) {
      self = .uri(text)
      return
    }
    let (place, export) = Self.splitExport(text)
    if place.hasPrefix("unix:") {
      let path = String(place.dropFirst(5))
      guard path.hasPrefix("/") else { throw NBDError("the socket's path has to be absolute") }
      guard path.utf8.count < 108 else { throw NBDError("the socket's path is longer than 107 bytes") }
      self = .unix(path: path, export: export)
      return
    }
    guard let colon = place.lastIndex(of: ":") else { throw NBDError(Self.forms) }
    let host = place[..<colon]
    let port = String(place[place.index(after: colon)...])
    guard !host.isEmpty, StoreValue.decimal(port, in: 1...65535) != nil else { throw NBDError(Self.forms) }
    let isBracketed = host.hasPrefix("[") && host.hasSuffix("]")
    self = .tcp(host: String(isBracketed ? host.dropFirst().dropLast() : host), port: port, export: export)
  }

  private static let forms =
    "an NBD server is given as unix:/PATH[:exportname=NAME], HOST:PORT[:exportname=NAME] or a URI"
    + " (nbd://HOST/EXPORT, nbds://HOST/EXPORT, nbd+unix:///EXPORT?socket=PATH)"

  private static func splitExport(_ text: String) -> (place: String, export: String) {
    let mark = Array(":exportname=".utf8)
    let bytes = Array(text.utf8)
    guard bytes.count >= mark.count else { return (text, "") }
    for start in 0...(bytes.count - mark.count) where bytes[start..<start + mark.count] == mark[...] {
      return (
        String(decoding: bytes[..<start], as: UTF8.self),
        String(decoding: bytes[(start + mark.count)...], as: UTF8.self)
      )
    }
    return (text, "")
  }

  /// The address as it is written.
  public var description: String {
    switch self {
    case .uri(let uri): uri
    case .unix(let path, let export): export.isEmpty ? "unix:\(path)" : "unix:\(path):exportname=\(export)"
    case .tcp(let host, let port, let export):
      export.isEmpty ? "\(host):\(port)" : "\(host):\(port):exportname=\(export)"
    }
  }
}
