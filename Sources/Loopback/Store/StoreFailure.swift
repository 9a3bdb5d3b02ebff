/// Why a request was refused. The raw value is the name that travels in an `XS_ERROR` reply
/// (`xs_wire.h`, `xsd_errors`); names outside that table reach libxenstore as EINVAL, so there are none.
enum StoreFailure: String, Error, CaseIterable, CustomStringConvertible {
  case invalid = "EINVAL"
  case accessDenied = "EACCES"
  case alreadyExists = "EEXIST"
  case isDirectory = "EISDIR"
  case notFound = "ENOENT"
  case outOfMemory = "ENOMEM"
  case outOfSpace = "ENOSPC"
  case inputOutput = "EIO"
  case notEmpty = "ENOTEMPTY"
  case notImplemented = "ENOSYS"
  case readOnly = "EROFS"
  case busy = "EBUSY"
  case tryAgain = "EAGAIN"
  case alreadyConnected = "EISCONN"
  case tooBig = "E2BIG"
  case notPermitted = "EPERM"

  var description: String { rawValue }
}
