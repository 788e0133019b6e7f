// Package dep is a dependency.
package dep

// Same returns n.
func Same(n int) int { return n }
