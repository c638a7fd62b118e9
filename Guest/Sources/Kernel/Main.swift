// What SwiftPM wants of an executable; the machine enters at boot.S instead.
@main enum Kernel {
  static func main() {}
}
