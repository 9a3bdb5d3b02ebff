import Glibc

/// The process's limit of open descriptors.
public enum DescriptorLimit {
  /// Raises the soft limit towards the hard one, to at most 65536: 1024, the usual one, are few for many
  /// disks.
  public static func raise() {
    var limit = rlimit()
    // Sound: the structure is a local variable, passed for the duration of each call.
    guard unsafe getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return }
    limit.rlim_cur = max(limit.rlim_cur, min(limit.rlim_max, 65536))
    _ = unsafe setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
  }
}
