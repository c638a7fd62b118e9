// Why a file operation failed.

/// Reasons that a file system or the VFS gives; the raw value travels in replies, where 0 means success.
public enum FileError: UInt64, Error, Sendable {
  case notFound = 1
  case exists = 2
  case notDirectory = 3
  case isDirectory = 4
  case notEmpty = 5
  /// No free block, inode or page.
  case noSpace = 6
  case readOnly = 7
  /// A name of no or more than 255 bytes, or with `/` or NUL in it.
  case badName = 8
  /// Beyond what the file system can address.
  case tooLarge = 9
  /// What lies on the disk contradicts itself.
  case corrupt = 10
  /// The device failed.
  case inputOutput = 11
  /// An argument makes no sense here.
  case invalid = 12
  /// More symbolic links on the way than `VFS.maximumLinks`.
  case tooManyLinks = 13
  /// Rename or link from one file system into another.
  case crossDevice = 14
  /// No such open file, or not one of this client's.
  case badHandle = 15
  /// Opened without the right to do this.
  case denied = 16
  /// In use: a mount point, or a file system with open files.
  case busy = 17
  /// This file system cannot do that.
  case unsupported = 18
  /// A table of the service is full.
  case tableFull = 19
  /// The service has gone.
  case serviceGone = 20
  /// The driver of the device has ended.
  case deviceGone = 21
}

extension FileError {
  /// A word for messages.
  public var name: StaticString {
    switch self {
    case .notFound: "not found"
    case .exists: "exists already"
    case .notDirectory: "not a directory"
    case .isDirectory: "is a directory"
    case .notEmpty: "not empty"
    case .noSpace: "no space left"
    case .readOnly: "read-only"
    case .badName: "bad name"
    case .tooLarge: "too large"
    case .corrupt: "the file system is damaged"
    case .inputOutput: "input or output error"
    case .invalid: "not possible here"
    case .tooManyLinks: "too many links"
    case .crossDevice: "lies on another file system"
    case .badHandle: "not open"
    case .denied: "denied"
    case .busy: "in use"
    case .unsupported: "unsupported"
    case .tableFull: "table full"
    case .serviceGone: "service is gone"
    case .deviceGone: "device is gone"
    }
  }
}
