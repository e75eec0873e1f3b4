package store

import (
	"database/sql"
	"hash/fnv"
	"io"

	"deployhook/internal/deploy"
)

type knownDelivery struct {
	id      int64
	message string
}

// known finds the delivery that d repeats.
func (t *tx) known(d *deploy.Delivery) (k knownDelivery, err error) {
	list := hashes(d)
	if len(list) == 0 {
		return k, nil
	}
	conflict := false
	err = t.each(func(rows *sql.Rows) error {
		var id int64
		var hook, key, hash, message string
		var sameBody bool
		if err := rows.Scan(&id, &hook, &key, &hash, &sameBody, &message); err != nil || hook != d.Hook {
			return err
		}
		sameKey := d.Key != "" && key == d.Key
		switch {
		case sameKey && hash != d.BodyHash:
			conflict = true
		case sameKey, k.id == 0 && d.SameBody && sameBody && hash == d.BodyHash:
			k = knownDelivery{id, message}
		}
		return nil
	}, `SELECT id, hook, key, body_hash, same_body, message FROM known JOIN deliveries ON id = delivery
		WHERE hash IN (?, ?) ORDER BY id DESC`, list[0], list[len(list)-1])
	if err == nil && conflict {
		err = deploy.ErrConflict
	}
	return k, err
}

// hashes are what a delivery is known by: its id, and its body. They only find
// rows, which are then compared.
func hashes(d *deploy.Delivery) []int64 {
	var list []int64
	add := func(kind, what string) {
		h := fnv.New64a()
		_, _ = io.WriteString(h, d.Hook+"\x00"+kind+"\x00"+what)
		list = append(list, int64(h.Sum64()))
	}
	if d.Key != "" {
		add("key", d.Key)
	}
	if d.SameBody {
		add("body", d.BodyHash)
	}
	return list
}

// remember makes a delivery known.
func (t *tx) remember(d *deploy.Delivery, id int64) error {
	const one = `INSERT OR IGNORE INTO known (hash, delivery) VALUES (?, ?)`
	switch list := hashes(d); len(list) {
	case 1:
		return t.exec(one, list[0], id)
	case 2:
		return t.exec(one+`, (?, ?)`, list[0], id, list[1], id)
	}
	return nil
}

// forget is the opposite of remember.
func (t *tx) forget(d *deploy.Delivery) error {
	for _, hash := range hashes(d) {
		if err := t.exec(`DELETE FROM known WHERE hash = ? AND delivery = ?`, hash, d.ID); err != nil {
			return err
		}
	}
	return nil
}
