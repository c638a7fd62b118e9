// Why a file could not become part of a guest: one error, naming the file and what is wrong with it.

/// A file that cannot be loaded into the guest.
public struct LoaderError: Error, Equatable, Sendable, CustomStringConvertible {
  /// What is wrong.
  public enum Problem: Equatable, Sendable {
    /// The host refused to open or read it.
    case cannotRead(errno: Int32)
    /// It is a directory, a device or a pipe.
    case notARegularFile
    /// It ends before the part named.
    case truncated(part: String)
    /// It is neither an ELF file nor a Linux bzImage.
    case unknownFormat
    /// An ELF file for another machine or of another kind; says which.
    case notAnX8664Kernel(String)
    /// The kernel has no entry point for the way it is to be started; says which note or feature lacks.
    case noEntryPoint(String)
    /// A field contradicts the format; says which.
    case malformed(String)
    /// The part lies where the guest has no RAM.
    case outsideMemory(part: String, range: Range<UInt64>)
    /// The part lies in the gap between low and high RAM.
    case insideMMIOHole(part: String, range: Range<UInt64>)
    /// The part lies on something else that the guest needs.
    case overlaps(part: String, range: Range<UInt64>, other: String)
    /// No free RAM below the gap is large enough.
    case noRoom(part: String, bytes: UInt64)
    /// The machine has something that a device tree cannot say; the text of the `DeviceTreeError`.
    case platformNotDescribable(String)
    /// The kernel command line is too long for the place it goes to.
    case commandLineTooLong(bytes: Int, limit: Int)
  }

  /// The file, as the user named it.
  public let path: String
  public let problem: Problem

  public init(path: String, problem: Problem) {
    self.path = path
    self.problem = problem
  }

  public var description: String { "\(path): \(problem)" }
}

extension LoaderError.Problem: CustomStringConvertible {
  public var description: String {
    switch self {
    case .cannotRead(let errno): "cannot be read: \(hostErrorText(errno))"
    case .notARegularFile: "is not a regular file"
    case .truncated(let part): "is truncated: it ends before the end of \(part)"
    case .unknownFormat: "is neither an ELF kernel nor a Linux bzImage"
    case .notAnX8664Kernel(let why): "is not an x86-64 kernel: \(why)"
    case .noEntryPoint(let what): "has no usable entry point: \(what)"
    case .malformed(let what): "is malformed: \(what)"
    case .outsideMemory(let part, let range): "\(part) at \(text(range)) lies outside the guest's memory"
    case .insideMMIOHole(let part, let range):
      "\(part) at \(text(range)) overlaps the MMIO hole at \(text(PlatformLayout.mmioHole))"
    case .overlaps(let part, let range, let other): "\(part) at \(text(range)) overlaps \(other)"
    case .noRoom(let part, let bytes): "no room for \(part) of \(bytes) bytes in the guest's memory below 3 GiB"
    case .platformNotDescribable(let why): "cannot be given a device tree: \(why)"
    case .commandLineTooLong(let bytes, let limit):
      "the command line has \(bytes) bytes, but this kernel takes at most \(limit)"
    }
  }

  private func text(_ range: Range<UInt64>) -> String {
    "0x\(String(range.lowerBound, radix: 16))–0x\(String(range.upperBound, radix: 16))"
  }
}
