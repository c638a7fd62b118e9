// How kernel code refers to an object at a fixed address: the one place where KernelCore touches raw pointers.

/// A reference to an object that never moves and that its user knows to be alive: the kernel counts references itself (per
/// handle and per use), because automatic reference counting would put locked instructions on every path.
@frozen public struct Reference<Object>: Equatable {
  @usableFromInline let pointer: UnsafeMutablePointer<Object>

  @inlinable public init(_ pointer: UnsafeMutablePointer<Object>) { self.pointer = pointer }
  /// The object at a kernel-virtual address; nil for address 0.
  @inlinable public init?(address: UInt64) {
    guard let pointer = UnsafeMutablePointer<Object>(bitPattern: UInt(address)) else { return nil }
    self.pointer = pointer
  }

  /// The object at an address that the kernel itself stored or that assembly passed, so that it is not 0.
  @inlinable public init(trusted address: UInt64) {
    pointer = UnsafeMutablePointer<Object>(bitPattern: UInt(address)).unsafelyUnwrapped
  }

  /// The object. Unsafe in general, safe under the type's rule: whoever holds a reference holds a count on the object.
  @inlinable public var pointee: Object {
    unsafeAddress { UnsafePointer(pointer) }
    nonmutating unsafeMutableAddress { pointer }
  }
  /// Its kernel-virtual address.
  @inlinable public var address: UInt64 { UInt64(UInt(bitPattern: pointer)) }
  /// The `index`-th object of an array that starts here; the caller has checked the index.
  @inlinable public func element(_ index: Int) -> Reference { Reference(pointer + index) }
  /// Gives fresh memory its first value.
  @inlinable public func initialize(to value: Object) { pointer.initialize(to: value) }
  @inlinable public static func == (a: Reference, b: Reference) -> Bool { a.pointer == b.pointer }
}
