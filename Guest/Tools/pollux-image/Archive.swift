// How the boot archive is packed: POSIX ustar (IEEE 1003.1, pax, "ustar Interchange Format") in which the contents of every
// file begin on a 4 KiB boundary, so that a loader can map them in place.
import Glibc

/// A ustar archive under construction.
struct Archive {
  static let block = 512
  static let page = 4096
  private(set) var bytes: [UInt8] = []

  /// Appends a file, preceded by a filler entry `.align` where its contents would not begin on a page.
  mutating func append(name: String, contents: [UInt8], executable: Bool) {
    let misplaced = (bytes.count + Self.block) % Self.page
    if misplaced != 0 {
      // The filler's header and the file's header both come before the file's contents.
      let filler = (2 * Self.page - misplaced - Self.block) % Self.page
      appendEntry(name: ".align", contents: [UInt8](repeating: 0, count: filler), mode: 0o444)
    }
    appendEntry(name: name, contents: contents, mode: executable ? 0o555 : 0o444)
  }

  /// Two zero blocks end an archive; the rest of the page is filled.
  mutating func finish() {
    bytes.append(contentsOf: [UInt8](repeating: 0, count: 2 * Self.block))
    pad(to: Self.page)
  }

  private mutating func pad(to unit: Int) {
    bytes.append(contentsOf: [UInt8](repeating: 0, count: (unit - bytes.count % unit) % unit))
  }

  private mutating func appendEntry(name: String, contents: [UInt8], mode: Int) {
    var header = [UInt8](repeating: 0, count: Self.block)
    func put(_ text: String, at offset: Int) {
      for (index, byte) in text.utf8.enumerated() { header[offset + index] = byte }
    }
    func octal(_ value: Int, digits: Int) -> String {
      let text = String(value, radix: 8)
      return String(repeating: "0", count: max(0, digits - text.count)) + text
    }
    put(name, at: 0)
    put(octal(mode, digits: 7), at: 100)
    put(octal(0, digits: 7), at: 108)
    put(octal(0, digits: 7), at: 116)
    put(octal(contents.count, digits: 11), at: 124)
    put(octal(0, digits: 11), at: 136)
    put("        ", at: 148)
    put("0", at: 156)
    put("ustar", at: 257)
    put("00", at: 263)
    put(octal(header.reduce(0) { $0 + Int($1) }, digits: 6), at: 148)
    header[154] = 0
    bytes.append(contentsOf: header)
    bytes.append(contentsOf: contents)
    pad(to: Self.block)
  }
}
