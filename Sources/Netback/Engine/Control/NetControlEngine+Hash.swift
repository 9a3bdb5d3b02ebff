import RingKit

/// What a frontend sets about hashes. Nothing changes unless the answer is success.
extension NetControlEngine where Host: ~Copyable {
  mutating func setHashAlgorithm(_ number: UInt32) -> NetControlStatus {
    guard let algorithm = NetHashAlgorithm(rawValue: number) else { return .invalidParameter }
    hash.algorithm = algorithm
    isHashChanged = true
    return .success
  }

  mutating func setHashTypes(_ bits: UInt32) -> NetControlStatus {
    guard hash.algorithm != .none else { return .invalidParameter }
    let types = NetHashTypes(rawValue: bits)
    guard NetHashTypes.all.isSuperset(of: types) else { return .invalidParameter }
    hash.types = types
    isHashChanged = true
    return .success
  }

  mutating func setHashKey(
    _ reference: GrantReference, byteCount: UInt32, host: inout Host
  ) -> NetControlStatus {
    guard byteCount <= UInt32(NetHashState.maximumKeyByteCount) else { return .bufferOverflow }
    let count = Int(byteCount)
    // Nothing is copied to clear the key, so its reference means nothing.
    if count > 0 {
      guard copy(count, of: reference, toGuest: false, host: &host) else { return .invalidParameter }
    }
    hash.setKey(page.copyBytes(at: 0, count: count))
    isHashChanged = true
    return .success
  }

  mutating func setHashMappingSize(_ count: UInt32) -> NetControlStatus {
    guard count <= UInt32(NetHashState.maximumMappingCount) else { return .invalidParameter }
    hash.mapping = [UInt16](repeating: 0, count: Int(count))
    isHashChanged = true
    return .success
  }

  /// XSA-270: the range is checked before anything is copied, without a sum that could wrap; the entries after
  /// that, on the private copy; and the table in use is replaced whole or not at all.
  mutating func setHashMapping(
    _ reference: GrantReference, count: UInt32, first: UInt32, host: inout Host
  ) -> NetControlStatus {
    let maximum = UInt32(NetHashState.maximumMappingCount)
    guard first <= maximum, count <= maximum - first else { return .bufferOverflow }
    let size = UInt32(hash.mapping.count)
    guard first <= size, count <= size - first else { return .invalidParameter }
    guard count > 0 else { return .success }
    guard copy(Int(count) * 4, of: reference, toGuest: false, host: &host) else { return .invalidParameter }
    let words = page.copyWords(at: 0, count: (Int(count) + 1) / 2)
    var mapping = hash.mapping
    for index in 0..<Int(count) {
      let entry = UInt32(truncatingIfNeeded: words[index / 2] >> (index % 2 == 0 ? 0 : 32))
      guard entry < UInt32(queueCount) else { return .invalidParameter }
      mapping[Int(first) + index] = UInt16(entry)
    }
    hash.mapping = mapping
    isHashChanged = true
    return .success
  }
}
