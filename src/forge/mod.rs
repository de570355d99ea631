//! Pull requests at GitHub and Gitea/Forgejo.
