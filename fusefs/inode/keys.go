package inode

// keys finds nodes by the key of a name. It is a hash table of pairs (hash, node) with linear probing: 8 bytes a slot, where
// a map with the key beside the node would take 40 bytes a mail. Keys of one hash are told apart by the caller, who knows
// the names.
type keys struct {
	slots []keySlot // as many as a power of two; at most three quarters in use
	used  int
}

type keySlot struct {
	hash uint32
	id   ID // 0: free
}

// hashOf is FNV-1a.
func hashOf(key string) uint32 {
	h := uint32(2166136261)
	for i := 0; i < len(key); i++ {
		h = (h ^ uint32(key[i])) * 16777619
	}
	return h
}

// find returns the first node under the key's hash for which is says that it is the one, 0 if there is none.
func (k *keys) find(key string, is func(ID) bool) ID {
	if i := k.at(hashOf(key), is); i >= 0 {
		return k.slots[i].id
	}
	return 0
}

func (k *keys) at(hash uint32, is func(ID) bool) int {
	if len(k.slots) == 0 {
		return -1
	}
	mask := len(k.slots) - 1
	for i := int(hash) & mask; k.slots[i].id != 0; i = (i + 1) & mask {
		if k.slots[i].hash == hash && is(k.slots[i].id) {
			return i
		}
	}
	return -1
}

// add puts a node under a key, beside others that are there already.
func (k *keys) add(key string, id ID) {
	if 4*(k.used+1) > 3*len(k.slots) {
		k.resize(max(8, 2*len(k.slots)))
	}
	k.put(keySlot{hashOf(key), id})
	k.used++
}

func (k *keys) put(s keySlot) {
	mask := len(k.slots) - 1
	i := int(s.hash) & mask
	for k.slots[i].id != 0 {
		i = (i + 1) & mask
	}
	k.slots[i] = s
}

func (k *keys) resize(n int) {
	old := k.slots
	k.slots = make([]keySlot, n)
	for _, s := range old {
		if s.id != 0 {
			k.put(s)
		}
	}
}

// remove takes a node from under a key.
func (k *keys) remove(key string, id ID) {
	i := k.at(hashOf(key), func(have ID) bool { return have == id })
	if i < 0 {
		return
	}
	k.used--
	// What follows without a gap may stand there only because this slot was taken: it moves up.
	mask := len(k.slots) - 1
	for j := (i + 1) & mask; k.slots[j].id != 0; j = (j + 1) & mask {
		home := int(k.slots[j].hash) & mask
		if (j-home)&mask >= (j-i)&mask {
			k.slots[i] = k.slots[j]
			i = j
		}
	}
	k.slots[i] = keySlot{}
	if len(k.slots) > 64 && 8*k.used < len(k.slots) {
		k.resize(len(k.slots) / 4)
	}
}
