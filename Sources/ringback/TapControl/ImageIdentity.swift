import Blkback
import Foundation

/// Which image a name means, so that "aio:/p", "raw:/p" and "/p" are found to be the same.
struct ImageIdentity: Hashable {
  private let kind: String
  private let location: String

  /// Nil when the name is of no kind that is known.
  init?(_ name: String) {
    guard let (kind, location) = try? StoreTable.parse(name), let prefix = kind.prefixes.first else {
      return nil
    }
    self.kind = prefix
    self.location =
      location.hasPrefix("/") ? URL(filePath: location).resolvingSymlinksInPath().path : location
  }
}
