import ArgumentParser

struct Fdt: ParsableCommand {}
