"""How clusters, clients, views, results and their progress look: snapshots to text and to HTML.

`words` are the pieces that both share, `cards` what is worth showing of a snapshot, `text` and `html` how;
all of that is pure. `screens` put progress on a terminal or in a notebook, `live` keeps what a notebook
displays up to date.
"""
