// Package sum adds, each number in a goroutine of its own.
package sum

import (
	"sync"

	"example.invalid/dep"
)

// Total adds the numbers below n.
func Total(n int) (total int) {
	var lock sync.Mutex
	var all sync.WaitGroup
	for i := 0; i < n; i++ {
		all.Add(1)
		go func(i int) {
			defer all.Done()
			lock.Lock()
			defer lock.Unlock()
			total += dep.Same(i)
		}(i)
	}
	all.Wait()
	return total
}
