public import RingKit

/// One interface as the toolstack describes it in `backend/vif/<domid>/<devid>` (netif.h; net.md 1.5), with the
/// node `link` of our own.
public struct VifConfiguration: Equatable, Sendable {
  /// Where packets go.
  public enum Target: Equatable, Sendable {
    /// A TAP, for the toolstack's script to put into a bridge.
    case tap(name: String)
    /// A switch of the daemon's own, by name.
    case virtualSwitch(String)
  }

  /// Node `mac`: the guest's address; nil where the toolstack has not said.
  public var address: EthernetAddress?
  /// Node `bridge`, for messages: the script acts on it.
  public var bridge: String?
  /// Our own node `link`: "switch:NAME"; a TAP named as the kernel's backend names it when it is absent.
  public var target: Target
  /// Node `rate`; nil for no limit.
  public var rate: CreditRate?

  /// Reads and checks the description in the device's directory.
  public static func read(
    from store: any StoreAccess, directory: String
  ) throws(VifError) -> VifConfiguration {
    do {
      var address: EthernetAddress?
      if let text = try store.read("\(directory)/mac"), !text.isEmpty {
        guard let parsed = EthernetAddress(text), !parsed.isMulticast else {
          throw VifError(
            "\(directory)/mac is \"\(StoreError.escaped(text, limit: 64))\"; it has to be the address of one "
              + "interface, such as 00:16:3e:01:02:03")
        }
        address = parsed
      }
      return VifConfiguration(
        address: address, bridge: try store.read("\(directory)/bridge"),
        target: try target(in: store, directory: directory), rate: try rate(in: store, directory: directory))
    } catch let error as VifError {
      throw error
    } catch {
      throw VifError("\(error)")
    }
  }

  /// The name that scripts expect of the interface: "vif<domid>.<devid>" (libxl_internal.h, NETBACK_NIC_NAME).
  static func name(ofDirectory directory: String) -> String {
    let parts = directory.split(separator: "/").suffix(2)
    return "vif" + parts.joined(separator: ".")
  }

  /// Interfaces of a switch of ours have names like this at most.
  private static let longestSwitchName = 64

  private static func target(in store: any StoreAccess, directory: String) throws -> Target {
    let path = "\(directory)/link"
    guard let text = try store.read(path), !text.isEmpty, text != "tap" else {
      return .tap(name: name(ofDirectory: directory))
    }
    let prefix = "switch:"
    let name = text.hasPrefix(prefix) ? String(text.dropFirst(prefix.count)) : ""
    let isName = name.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "-_.".contains($0)) }
    guard !name.isEmpty, name.utf8.count <= longestSwitchName, isName else {
      throw VifError(
        "\(path) is \"\(StoreError.escaped(text, limit: 64))\"; it has to be tap, or switch: and a name of "
          + "letters, digits, dots, dashes")
    }
    return .virtualSwitch(name)
  }
}

extension VifConfiguration {
  /// Node `rate`; nil where it is absent or empty.
  static func rate(in store: any StoreAccess, directory: String) throws(VifError) -> CreditRate? {
    let path = "\(directory)/rate"
    let text: String
    do throws(StoreError) {
      guard let read = try store.read(path), !read.isEmpty else { return nil }
      text = read
    } catch {
      throw VifError(error)
    }
    do throws(CreditRateError) {
      return try CreditRate(node: text)
    } catch {
      throw VifError("\(path): \(error)")
    }
  }
}
