import Blkback

/// What a connected backend takes, within what the options ask for.
struct RequestLimits {
  /// Segments of an indirect request at most; 0 when there are none.
  var indirectSegments = 0
  /// Requests are multiples of it.
  var sectorByteCount = wireSectorByteCount
  /// Discards begin at multiples of it, in bytes, from `discardAlignment` on.
  var discardGranularity = wireSectorByteCount
  /// Where the first discard extent begins, in bytes.
  var discardAlignment = 0

  /// The limits of a queue without a backend.
  init() {}

  /// Follows Linux (xen-blkfront.c, blkfront_gather_backend_features): indirect requests only when they carry
  /// more than a slot does.
  init(_ features: BackendFeatures, _ disk: DiskProperties, _ options: BlockFrontendOptions) {
    let most = maximumIndirectPages * segmentsPerIndirectPage
    let indirect = min(
      min(max(0, options.maximumIndirectSegments), most), Int(clamping: features.maximumIndirectSegments))
    indirectSegments = indirect > options.directSegments ? indirect : 0
    sectorByteCount = disk.sectorByteCount
    let granularity = features.discardGranularityByteCount
    discardGranularity = granularity > 0 ? granularity : disk.sectorByteCount
    discardAlignment = features.discardAlignmentByteCount
  }

  /// Data pages that one request can have.
  var segmentCapacity: Int { max(maximumDirectSegments, indirectSegments) }

  /// Data and descriptor pages that one request can have.
  var pagesOfRequest: Int {
    segmentCapacity + (indirectSegments + segmentsPerIndirectPage - 1) / segmentsPerIndirectPage
  }
}
