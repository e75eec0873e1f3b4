package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"deployhook/internal/deploy"
)

// NotificationStates are what a list of notifications may be narrowed to.
var NotificationStates = []string{
	string(deploy.Queued), string(deploy.Waiting), string(deploy.Running), string(deploy.Succeeded), string(deploy.Failed), string(deploy.Canceled),
}

func (s *server) notifications(r *http.Request) ([]Notification, error) {
	limit, before, err := page(r)
	if err != nil {
		return nil, err
	}
	q := r.URL.Query()
	in := q.Get("state")
	if in != "" && !slices.Contains(NotificationStates, in) {
		return nil, fmt.Errorf("%w: %q is no state of a notification: there are %s%s", deploy.ErrMisuse, in, strings.Join(NotificationStates, ", "),
			deploy.DidYouMean(in, NotificationStates))
	}
	list, err := s.Outbox.Notifications(r.Context(), deploy.NotificationFilter{State: deploy.State(in), Target: q.Get("target"), Before: before, Limit: limit})
	views := []Notification{}
	for i := range list {
		v := notificationView(&list[i])
		v.Tries = nil
		views = append(views, v)
	}
	return views, err
}

func (s *server) notification(r *http.Request) (Notification, error) {
	n, err := id(r)
	if err != nil {
		return Notification{}, err
	}
	got, err := s.Outbox.Notification(r.Context(), n)
	if err != nil {
		return Notification{}, noNotification(n, err)
	}
	return notificationView(got), nil
}

// noNotification says what to do about a number that none has.
func noNotification(n int64, err error) error {
	if errors.Is(err, deploy.ErrNotFound) {
		return hinted{fmt.Errorf("notification %d: %w", n, err), "deployhook notifications lists them"}
	}
	return err
}

func (s *server) resend(r *http.Request) (done, error) {
	n, err := id(r)
	if err != nil {
		return done{}, err
	}
	if err := s.Outbox.Resend(r.Context(), n, time.Now()); err != nil {
		return done{}, noNotification(n, err)
	}
	return done{fmt.Sprintf("notification %d is sent again", n)}, nil
}

// Notifications lists notifications, the newest first.
func (c *Client) Notifications(ctx context.Context, q Query) ([]Notification, error) {
	return call[[]Notification](ctx, c, http.MethodGet, "/api/notifications"+q.encode(), nil)
}

// Notification gives one notification with its tries.
func (c *Client) Notification(ctx context.Context, n int64) (Notification, error) {
	return call[Notification](ctx, c, http.MethodGet, fmt.Sprintf("/api/notifications/%d", n), nil)
}

// Resend has a notification sent again, now.
func (c *Client) Resend(ctx context.Context, n int64) (string, error) {
	d, err := call[done](ctx, c, http.MethodPost, fmt.Sprintf("/api/notifications/%d/resend", n), nil)
	return d.Message, err
}
